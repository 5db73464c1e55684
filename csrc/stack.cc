#include "stack.h"

#include <algorithm>
#include <limits>
#include <string>

#include "error.h"
#include "layout.h"

namespace fastrnn {
namespace {

int64_t OutputBytes(const LayerDesc& desc) {
  return desc.rows() * desc.directions * desc.hidden * SizeOf(desc.dtype);
}

// A layer's part of the words of the reserve of each step and row.
int64_t LayerWords(const LayerDesc& desc) {
  return desc.directions * desc.hidden * ReserveWords(desc.mode, desc.dtype);
}

// The workspace: what the layers hand each other, in arrays that take turns, as a layer reads one
// and writes another, and what each of them works with.
struct Workspace {
  static constexpr int64_t kArrays = 2;

  char* between[kArrays] = {};
  char* of_layer;
  size_t bytes;

  Workspace(const Stack& stack, int64_t handed, size_t (*bytes_of)(const LayerDesc&), void* base) {
    Carver carver(base);
    for (int64_t i = 0; i < std::min(handed, kArrays); ++i) {
      between[i] = carver.Take<char>(static_cast<size_t>(OutputBytes(stack.first)));
    }
    size_t most = bytes_of(stack.first);
    if (stack.layers > 1) most = std::max(most, bytes_of(stack.At(1)));  // as of all above
    of_layer = carver.Take<char>(most);
    bytes = carver.used();
  }
};

Workspace ForwardWorkspace(const Stack& stack, void* base) {
  return Workspace(stack, stack.first.reserve ? 0 : stack.layers - 1, ForwardWorkspaceBytes, base);
}

Workspace BackwardWorkspace(const Stack& stack, void* base) {
  return Workspace(stack, stack.layers - 1, BackwardWorkspaceBytes, base);
}

// The part of states [L*D, N, H], or of their gradients, that is a layer's; null stays null.
template <class Pointer>
Pointer StatesAt(const Stack& stack, Pointer states, int64_t layer) {
  if (states == nullptr) return nullptr;
  using Byte =
      std::conditional_t<std::is_const<std::remove_pointer_t<Pointer>>::value, const char, char>;
  const LayerDesc& desc = stack.first;
  const int64_t bytes = desc.directions * desc.batch * desc.hidden * SizeOf(desc.dtype);
  return static_cast<Byte*>(states) + layer * bytes;
}

// Where the reserve has a layer's own, and the outputs of all but the last: first all reserves.
template <class Byte>
Byte* ReserveAt(const Stack& stack, Byte* reserve, int64_t layer) {
  return At(reserve, layer * stack.first.rows() * LayerWords(stack.first) * 4);
}
template <class Byte>
Byte* OutputInReserve(const Stack& stack, Byte* reserve, int64_t layer) {
  return ReserveAt(stack, reserve, stack.layers) + layer * OutputBytes(stack.first);
}

void ExpectReserve(const Stack& stack, const void* reserve) {
  FASTRNN_EXPECTS(stack.reserve_words() == 0 || reserve != nullptr,
                  "reserve is null, expected an array");
}

template <class Args>
void ExpectWeights(const Stack& stack, const Args& args) {
  const auto wanted = static_cast<size_t>(stack.layers * stack.first.directions);
  FASTRNN_EXPECTS(args.size() == wanted, "weights are of " + std::to_string(args.size()) +
                                             " layers and directions, expected " +
                                             std::to_string(wanted));
}

// What a layer's forward and backward both take, but for x.
template <class Args, class StackArgs>
Args ArgsOf(const Stack& stack, const StackArgs& args, const Workspace& workspace, int64_t layer) {
  const int64_t directions = stack.first.directions;
  Args of_layer;
  of_layer.lengths = args.lengths;
  of_layer.h0 = StatesAt(stack, args.h0, layer);
  of_layer.c0 = StatesAt(stack, args.c0, layer);
  std::copy_n(args.weights.begin() + layer * directions, directions, of_layer.weights);
  of_layer.workspace = workspace.of_layer;
  of_layer.stream = args.stream;
  of_layer.layer = layer;
  return of_layer;
}

void* ForwardOutput(const Stack& stack, const StackForwardArgs& args, const Workspace& workspace,
                    int64_t layer) {
  if (layer == stack.layers - 1) return args.y;
  if (!stack.first.reserve) return workspace.between[layer % Workspace::kArrays];
  return OutputInReserve(stack, static_cast<char*>(args.reserve), layer);
}

ForwardArgs LayerArgs(const Stack& stack, const StackForwardArgs& args, const Workspace& workspace,
                      int64_t layer) {
  auto of_layer = ArgsOf<ForwardArgs>(stack, args, workspace, layer);
  of_layer.x = layer == 0 ? args.x : ForwardOutput(stack, args, workspace, layer - 1);
  of_layer.y = ForwardOutput(stack, args, workspace, layer);
  of_layer.hn = StatesAt(stack, args.hn, layer);
  of_layer.cn = StatesAt(stack, args.cn, layer);
  if (stack.first.reserve) {
    of_layer.reserve = ReserveAt(stack, static_cast<char*>(args.reserve), layer);
  }
  return of_layer;
}

BackwardArgs LayerArgs(const Stack& stack, const StackBackwardArgs& args,
                       const Workspace& workspace, int64_t layer) {
  const int64_t directions = stack.first.directions, top = stack.layers - 1;
  const auto* reserve = static_cast<const char*>(args.reserve);
  // Of the input of a layer that is not the first.
  const auto gradient = [&](int64_t upper) {
    return workspace.between[(upper - 1) % Workspace::kArrays];
  };
  auto of_layer = ArgsOf<BackwardArgs>(stack, args, workspace, layer);
  of_layer.x = layer == 0 ? args.x : OutputInReserve(stack, reserve, layer - 1);
  of_layer.y = layer == top ? args.y : OutputInReserve(stack, reserve, layer);
  of_layer.reserve = ReserveAt(stack, reserve, layer);
  of_layer.dy = layer == top ? args.dy : gradient(layer + 1);
  of_layer.dhn = StatesAt(stack, args.dhn, layer);
  of_layer.dcn = StatesAt(stack, args.dcn, layer);
  of_layer.dx = layer == 0 ? args.dx : gradient(layer);
  of_layer.dh0 = StatesAt(stack, args.dh0, layer);
  of_layer.dc0 = StatesAt(stack, args.dc0, layer);
  std::copy_n(args.gradients.begin() + layer * directions, directions, of_layer.gradients);
  return of_layer;
}

}  // namespace

LayerDesc Stack::At(int64_t layer) const {
  LayerDesc desc = first;
  if (layer > 0) desc.input = first.directions * first.hidden;
  return desc;
}

int64_t Stack::reserve_words() const {
  if (!first.reserve) return 0;
  const int64_t outputs = (layers - 1) * first.directions * first.hidden * SizeOf(first.dtype);
  return layers * LayerWords(first) + (outputs + 3) / 4;
}

void Validate(const Stack& stack) {
  FASTRNN_EXPECTS(stack.layers >= 1,
                  "number of layers is " + std::to_string(stack.layers) + ", expected 1 or more");
  Validate(stack.first);
  if (stack.layers == 1) return;
  Validate(stack.At(1));
  const LayerDesc& desc = stack.first;
  const int64_t most = std::numeric_limits<int64_t>::max() / 64;
  FASTRNN_EXPECTS(
      stack.layers <= most / (desc.rows() * desc.directions * desc.hidden),
      "the number of values of " + std::to_string(stack.layers) + " layers overflows 64 bits");
}

size_t ReserveBytes(const Stack& stack) {
  Validate(stack);
  return static_cast<size_t>(stack.first.rows() * stack.reserve_words() * 4);
}

size_t ForwardWorkspaceBytes(const Stack& stack) {
  Validate(stack);
  return ForwardWorkspace(stack, nullptr).bytes;
}

size_t BackwardWorkspaceBytes(const Stack& stack) {
  Validate(stack);
  return BackwardWorkspace(stack, nullptr).bytes;
}

void Forward(const Stack& stack, const StackForwardArgs& args) {
  Validate(stack);
  ExpectWeights(stack, args.weights);
  ExpectReserve(stack, args.reserve);
  const Workspace workspace = ForwardWorkspace(stack, args.workspace);
  for (int64_t layer = 0; layer < stack.layers; ++layer) {
    Forward(stack.At(layer), LayerArgs(stack, args, workspace, layer));
  }
}

void Backward(const Stack& stack, const StackBackwardArgs& args) {
  Validate(stack);
  ExpectWeights(stack, args.weights);
  ExpectWeights(stack, args.gradients);
  ExpectReserve(stack, args.reserve);
  const Workspace workspace = BackwardWorkspace(stack, args.workspace);
  for (int64_t layer = stack.layers - 1; layer >= 0; --layer) {
    Backward(stack.At(layer), LayerArgs(stack, args, workspace, layer));
  }
}

}  // namespace fastrnn
