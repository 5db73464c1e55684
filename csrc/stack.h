// Layers one on top of the other, each of which takes what the one below puts out: the interface
// between the bindings and rnn.h. Of the layers above the first, the input is D*H wide.
//
// The layers run one after the other, or, where the CUDA backend says so, two at once: see
// cuda/stepwise.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "rnn.h"

namespace fastrnn {

struct Stack {
  LayerDesc first;     // the lowest layer
  int64_t layers = 1;  // L
  // Whether each layer but the first takes what the one below puts out times a mask, as dropout
  // makes one.
  bool masked = false;

  LayerDesc At(int64_t layer) const;
  // What backward needs in words of 4 bytes, for each step and row: the layers' reserves, and the
  // outputs of all layers but the last. 0 where `first.reserve` is not set.
  int64_t reserve_words() const;
};

// As ForwardArgs and BackwardArgs, but for the states and their gradients, which are [L*D, N, H],
// and the weights, D for each layer, the lowest first. The reserve is ReserveBytes(stack). The
// masks are L-1 arrays [T, N, D*H] where the stack is masked, the lowest first, and constants:
// backward is given the same, and computes no gradient of theirs. What is handed on is rounded to
// the layer's type once more when it has been multiplied. Past a row's length, NaN
// harms nothing, in a mask neither.
struct StackForwardArgs {
  const void* x = nullptr;
  const int32_t* lengths = nullptr;
  const void* h0 = nullptr;
  const void* c0 = nullptr;
  std::vector<Weights> weights;
  std::vector<const void*> masks;
  void* y = nullptr;
  void* hn = nullptr;
  void* cn = nullptr;
  void* reserve = nullptr;
  void* workspace = nullptr;
  void* stream = nullptr;
};

struct StackBackwardArgs {
  const void* x = nullptr;
  const int32_t* lengths = nullptr;
  const void* h0 = nullptr;
  const void* c0 = nullptr;
  std::vector<Weights> weights;
  std::vector<const void*> masks;
  const void* y = nullptr;
  const void* reserve = nullptr;
  const void* dy = nullptr;
  const void* dhn = nullptr;
  const void* dcn = nullptr;
  void* dx = nullptr;
  void* dh0 = nullptr;
  void* dc0 = nullptr;
  std::vector<WeightGradients> gradients;
  void* workspace = nullptr;
  void* stream = nullptr;
};

// These throw what their namesakes for a layer throw, and InvalidArgument where there is no layer,
// or the number of weights is not that of the layers and directions, or that of the masks not that
// of the places in between.
void Validate(const Stack& stack);
size_t ReserveBytes(const Stack& stack);
size_t ForwardWorkspaceBytes(const Stack& stack);
size_t BackwardWorkspaceBytes(const Stack& stack);
void Forward(const Stack& stack, const StackForwardArgs& args);
void Backward(const Stack& stack, const StackBackwardArgs& args);

}  // namespace fastrnn
