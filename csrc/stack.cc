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

// The workspace: what the layers hand each other, what that is times a mask, and what each of their
// turns works with. Of the first, three arrays take turns: a pair reads one, and writes two others.
// Of the second there are two, since a turn reads so many; it has written them itself.
struct Workspace {
  static constexpr int64_t kArrays = 3, kMaskedArrays = 2;

  std::vector<char*> between;
  std::vector<char*> masked;
  char* of_turn;
  size_t bytes;

  Workspace(const Stack& stack, const std::vector<Turn>& turns, int64_t handed, void* base) {
    Carver carver(base);
    const auto take = [&](int64_t count, std::vector<char*>* arrays) {
      for (int64_t i = 0; i < count; ++i) {
        arrays->push_back(carver.Take<char>(static_cast<size_t>(OutputBytes(stack.first))));
      }
    };
    take(std::min(handed, kArrays), &between);
    take(stack.masked ? std::min(stack.layers - 1, kMaskedArrays) : 0, &masked);
    size_t most = 0;
    for (const Turn& turn : turns) most = std::max(most, turn.workspace_bytes);
    of_turn = carver.Take<char>(most);
    bytes = carver.used();
  }
};

Workspace ForwardWorkspace(const Stack& stack, const std::vector<Turn>& turns, void* base) {
  const int64_t handed = stack.first.reserve ? 0 : stack.layers - 1;
  return Workspace(stack, turns, handed, base);
}

Workspace BackwardWorkspace(const Stack& stack, const std::vector<Turn>& turns, void* base) {
  return Workspace(stack, turns, stack.layers - 1, base);
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

void ExpectMasks(const Stack& stack, const std::vector<const void*>& masks) {
  const auto wanted = static_cast<size_t>(stack.masked ? stack.layers - 1 : 0);
  FASTRNN_EXPECTS(masks.size() == wanted, "masks are " + std::to_string(masks.size()) +
                                              ", expected " + std::to_string(wanted));
  const auto alignment = static_cast<uintptr_t>(SizeOf(stack.first.dtype));
  for (size_t i = 0; i < wanted; ++i) {
    const std::string name = "masks[" + std::to_string(i) + "]";
    FASTRNN_EXPECTS(masks[i] != nullptr, name + " is null, expected an array");
    FASTRNN_EXPECTS(reinterpret_cast<uintptr_t>(masks[i]) % alignment == 0,
                    name + " is not aligned, expected an address that is a multiple of " +
                        std::to_string(alignment));
  }
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

// What the layers' passes have in common; Of::Output(layer) is what a layer puts out.
template <class Of, class Args>
class Layers {
 public:
  Layers(const Stack& stack, const Args& args, const Workspace& workspace)
      : stack_(stack), args_(args), workspace_(workspace) {}

  // Whether the layer takes what the one below puts out times a mask.
  bool HasMask(int64_t layer) const { return stack_.masked && layer > 0; }
  MaskedInput Masked(int64_t layer) const {
    if (!HasMask(layer)) return {};
    return {args_.masks[layer - 1], workspace_.masked[(layer - 1) % Workspace::kMaskedArrays]};
  }
  // To be called before the layer's turn; backward once more, as the reserve has no room for it.
  void MaskInput(int64_t layer) const {
    if (HasMask(layer)) Mask(layer, OutputBelow(layer), Masked(layer).x);
  }

 protected:
  const void* Input(int64_t layer) const {
    if (layer == 0) return args_.x;
    return HasMask(layer) ? Masked(layer).x : OutputBelow(layer);
  }
  void Mask(int64_t layer, const void* values, void* product) const {
    ApplyMask(stack_.first, values, Masked(layer).mask, product, args_.stream);
  }

  const Stack& stack_;
  const Args& args_;
  const Workspace& workspace_;

 private:
  const void* OutputBelow(int64_t layer) const {
    return static_cast<const Of*>(this)->Output(layer - 1);
  }
};

class ForwardLayers : public Layers<ForwardLayers, StackForwardArgs> {
 public:
  using Layers::Layers;

  ForwardArgs At(int64_t layer) const {
    auto of_layer = ArgsOf<ForwardArgs>(stack_, args_, workspace_, layer);
    of_layer.x = Input(layer);
    of_layer.y = Output(layer);
    of_layer.hn = StatesAt(stack_, args_.hn, layer);
    of_layer.cn = StatesAt(stack_, args_.cn, layer);
    if (stack_.first.reserve) {
      of_layer.reserve = ReserveAt(stack_, static_cast<char*>(args_.reserve), layer);
    }
    return of_layer;
  }

  void* Output(int64_t layer) const {
    if (layer == stack_.layers - 1) return args_.y;
    if (!stack_.first.reserve) return workspace_.between[layer % Workspace::kArrays];
    return OutputInReserve(stack_, static_cast<char*>(args_.reserve), layer);
  }
};

class BackwardLayers : public Layers<BackwardLayers, StackBackwardArgs> {
 public:
  using Layers::Layers;

  BackwardArgs At(int64_t layer) const {
    const int64_t directions = stack_.first.directions, top = stack_.layers - 1;
    auto of_layer = ArgsOf<BackwardArgs>(stack_, args_, workspace_, layer);
    of_layer.x = Input(layer);
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
  // From the gradient of what the layer took to that of what the one below put out.
  void MaskGradient(int64_t layer) const {
    if (HasMask(layer)) Mask(layer, Gradient(layer), Gradient(layer));
  }

  const void* Output(int64_t layer) const {
    if (layer == stack_.layers - 1) return args_.y;
    return OutputInReserve(stack_, static_cast<const char*>(args_.reserve), layer);
  }

 private:
  // Of the input of a layer that is not the first.
  void* Gradient(int64_t layer) const {
    return workspace_.between[(layer - 1) % Workspace::kArrays];
  }
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
  ExpectMasks(stack, args.masks);
  ExpectReserve(stack, args.reserve);
  const std::vector<Turn> turns = ForwardTurns(stack);
  const Workspace workspace = ForwardWorkspace(stack, turns, args.workspace);
  const ForwardLayers layers(stack, args, workspace);
  for (const Turn& turn : turns) {
    const int64_t layer = turn.layer, upper = turn.layer + 1;
    layers.MaskInput(layer);
    if (turn.count == 1) {
      Forward(stack.At(layer), layers.At(layer));
    } else {
      ForwardPair(stack.At(layer), layers.At(layer), stack.At(upper), layers.At(upper),
                  layers.Masked(upper));
    }
  }
}

void Backward(const Stack& stack, const StackBackwardArgs& args) {
  Validate(stack);
  ExpectWeights(stack, args.weights);
  ExpectWeights(stack, args.gradients);
  ExpectMasks(stack, args.masks);
  ExpectReserve(stack, args.reserve);
  const std::vector<Turn> turns = BackwardTurns(stack);
  const Workspace workspace = BackwardWorkspace(stack, turns, args.workspace);
  const BackwardLayers layers(stack, args, workspace);
  for (auto turn = turns.rbegin(); turn != turns.rend(); ++turn) {
    const int64_t layer = turn->layer, upper = turn->layer + 1;
    layers.MaskInput(layer);
    if (turn->count == 1) {
      Backward(stack.At(layer), layers.At(layer));
    } else {
      layers.MaskInput(upper);
      BackwardPair(stack.At(layer), layers.At(layer), stack.At(upper), layers.At(upper),
                   layers.Masked(upper));
    }
    layers.MaskGradient(layer);
  }
}

}  // namespace fastrnn
