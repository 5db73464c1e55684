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

// The layers that are run together: one, or two that are run at once.
struct Turn {
  int64_t layer, count;
  size_t workspace_bytes;
};

template <class OneBytes, class PairBytes>
std::vector<Turn> Turns(const Stack& stack, OneBytes one_bytes, PairBytes pair_bytes) {
  std::vector<Turn> turns;
  for (int64_t layer = 0; layer < stack.layers; layer += turns.back().count) {
    const LayerDesc desc = stack.At(layer);
    const bool lower = desc.paired && layer % 2 == 0;
    size_t bytes = 0;
    if (desc.device == Device::kCuda && lower) bytes = pair_bytes(desc, stack.At(layer + 1));
    if (bytes > 0) {
      turns.push_back({layer, 2, bytes});
    } else {
      turns.push_back({layer, 1, one_bytes(desc)});
    }
  }
  return turns;
}

std::vector<Turn> ForwardTurns(const Stack& stack) {
  return Turns(
      stack, [](const LayerDesc& desc) { return ForwardWorkspaceBytes(desc); }, ForwardPairBytes);
}

std::vector<Turn> BackwardTurns(const Stack& stack) {
  return Turns(
      stack, [](const LayerDesc& desc) { return BackwardWorkspaceBytes(desc); }, BackwardPairBytes);
}

// The workspace: what the layers hand each other, and what each of their turns works with. Three
// arrays take turns: a pair reads one, and writes two others.
struct Workspace {
  static constexpr int64_t kArrays = 3;

  std::vector<char*> between;
  char* of_turn;
  size_t bytes;

  Workspace(const std::vector<Turn>& turns, int64_t handed, int64_t bytes_each, void* base) {
    Carver carver(base);
    for (int64_t i = 0; i < std::min(handed, kArrays); ++i) {
      between.push_back(carver.Take<char>(static_cast<size_t>(bytes_each)));
    }
    size_t most = 0;
    for (const Turn& turn : turns) most = std::max(most, turn.workspace_bytes);
    of_turn = carver.Take<char>(most);
    bytes = carver.used();
  }
};

Workspace ForwardWorkspace(const Stack& stack, const std::vector<Turn>& turns, void* base) {
  const int64_t handed = stack.first.reserve ? 0 : stack.layers - 1;
  return Workspace(turns, handed, OutputBytes(stack.first), base);
}

Workspace BackwardWorkspace(const Stack& stack, const std::vector<Turn>& turns, void* base) {
  return Workspace(turns, stack.layers - 1, OutputBytes(stack.first), base);
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
template <class LayerArgs, class StackArgs>
LayerArgs ArgsOf(const Stack& stack, const StackArgs& args, const Workspace& workspace,
                 int64_t layer) {
  const int64_t directions = stack.first.directions;
  LayerArgs of_layer;
  of_layer.lengths = args.lengths;
  of_layer.h0 = StatesAt(stack, args.h0, layer);
  of_layer.c0 = StatesAt(stack, args.c0, layer);
  std::copy_n(args.weights.begin() + layer * directions, directions, of_layer.weights);
  of_layer.workspace = workspace.of_turn;
  of_layer.stream = args.stream;
  return of_layer;
}

class ForwardLayers {
 public:
  ForwardLayers(const Stack& stack, const StackForwardArgs& args, const Workspace& workspace)
      : stack_(stack), args_(args), workspace_(workspace) {}

  ForwardArgs At(int64_t layer) const {
    auto of_layer = ArgsOf<ForwardArgs>(stack_, args_, workspace_, layer);
    of_layer.x = layer == 0 ? args_.x : Output(layer - 1);
    of_layer.y = Output(layer);
    of_layer.hn = StatesAt(stack_, args_.hn, layer);
    of_layer.cn = StatesAt(stack_, args_.cn, layer);
    if (stack_.first.reserve) {
      of_layer.reserve = ReserveAt(stack_, static_cast<char*>(args_.reserve), layer);
    }
    return of_layer;
  }

 private:
  void* Output(int64_t layer) const {
    if (layer == stack_.layers - 1) return args_.y;
    if (!stack_.first.reserve) return workspace_.between[layer % Workspace::kArrays];
    return OutputInReserve(stack_, static_cast<char*>(args_.reserve), layer);
  }

  const Stack& stack_;
  const StackForwardArgs& args_;
  const Workspace& workspace_;
};

class BackwardLayers {
 public:
  BackwardLayers(const Stack& stack, const StackBackwardArgs& args, const Workspace& workspace)
      : stack_(stack), args_(args), workspace_(workspace) {}

  BackwardArgs At(int64_t layer) const {
    const int64_t directions = stack_.first.directions, top = stack_.layers - 1;
    auto of_layer = ArgsOf<BackwardArgs>(stack_, args_, workspace_, layer);
    of_layer.x = layer == 0 ? args_.x : Output(layer - 1);
    of_layer.y = Output(layer);
    of_layer.reserve = ReserveAt(stack_, static_cast<const char*>(args_.reserve), layer);
    of_layer.dy = layer == top ? args_.dy : Gradient(layer + 1);
    of_layer.dhn = StatesAt(stack_, args_.dhn, layer);
    of_layer.dcn = StatesAt(stack_, args_.dcn, layer);
    of_layer.dx = layer == 0 ? args_.dx : Gradient(layer);
    of_layer.dh0 = StatesAt(stack_, args_.dh0, layer);
    of_layer.dc0 = StatesAt(stack_, args_.dc0, layer);
    std::copy_n(args_.gradients.begin() + layer * directions, directions, of_layer.gradients);
    return of_layer;
  }

 private:
  const void* Output(int64_t layer) const {
    if (layer == stack_.layers - 1) return args_.y;
    return OutputInReserve(stack_, static_cast<const char*>(args_.reserve), layer);
  }
  // Of the input of a layer that is not the first.
  void* Gradient(int64_t layer) const {
    return workspace_.between[(layer - 1) % Workspace::kArrays];
  }

  const Stack& stack_;
  const StackBackwardArgs& args_;
  const Workspace& workspace_;
};

}  // namespace

LayerDesc Stack::At(int64_t layer) const {
  LayerDesc desc = first;
  if (layer > 0) desc.input = first.directions * first.hidden;
  // Of an odd number, the last one stays alone. Above two directions there is nothing to begin with
  // before both have ended.
  desc.paired = first.directions == 1 && (layer ^ 1) < layers;
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
  return ForwardWorkspace(stack, ForwardTurns(stack), nullptr).bytes;
}

size_t BackwardWorkspaceBytes(const Stack& stack) {
  Validate(stack);
  return BackwardWorkspace(stack, BackwardTurns(stack), nullptr).bytes;
}

void Forward(const Stack& stack, const StackForwardArgs& args) {
  Validate(stack);
  ExpectWeights(stack, args.weights);
  ExpectReserve(stack, args.reserve);
  const std::vector<Turn> turns = ForwardTurns(stack);
  const Workspace workspace = ForwardWorkspace(stack, turns, args.workspace);
  const ForwardLayers layers(stack, args, workspace);
  for (const Turn& turn : turns) {
    const LayerDesc desc = stack.At(turn.layer);
    if (turn.count == 1) {
      Forward(desc, layers.At(turn.layer));
    } else {
      ForwardPair(desc, layers.At(turn.layer), stack.At(turn.layer + 1), layers.At(turn.layer + 1));
    }
  }
}

void Backward(const Stack& stack, const StackBackwardArgs& args) {
  Validate(stack);
  ExpectWeights(stack, args.weights);
  ExpectWeights(stack, args.gradients);
  ExpectReserve(stack, args.reserve);
  const std::vector<Turn> turns = BackwardTurns(stack);
  const Workspace workspace = BackwardWorkspace(stack, turns, args.workspace);
  const BackwardLayers layers(stack, args, workspace);
  for (auto turn = turns.rbegin(); turn != turns.rend(); ++turn) {
    const LayerDesc desc = stack.At(turn->layer);
    if (turn->count == 1) {
      Backward(desc, layers.At(turn->layer));
    } else {
      BackwardPair(desc, layers.At(turn->layer), stack.At(turn->layer + 1),
                   layers.At(turn->layer + 1));
    }
  }
}

}  // namespace fastrnn
