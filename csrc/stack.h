// Layers one on top of the other, each of which takes what the one below puts out: the interface
// between the bindings and rnn.h. Of the layers above the first, the input is D*H wide.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "rnn.h"

namespace fastrnn {

struct Stack {
  LayerDesc first;     // the lowest layer
  int64_t layers = 1;  // L

  LayerDesc At(int64_t layer) const;
  // What backward needs in words of 4 bytes, for each step and row: the layers' reserves, and the
  // outputs of all layers but the last. 0 where `first.reserve` is not set.
  int64_t reserve_words() const;
};

// As ForwardArgs and BackwardArgs, but for the states and their gradients, which are [L*D, N, H],
// and the weights, D for each layer, the lowest first. The reserve is ReserveBytes(stack).
struct StackForwardArgs {
  const void* x = nullptr;
  const int32_t* lengths = nullptr;
  const void* h0 = nullptr;
  const void* c0 = nullptr;
  std::vector<Weights> weights;
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
// or the number of weights is not that of the layers and directions.
void Validate(const Stack& stack);
size_t ReserveBytes(const Stack& stack);
size_t ForwardWorkspaceBytes(const Stack& stack);
size_t BackwardWorkspaceBytes(const Stack& stack);
void Forward(const Stack& stack, const StackForwardArgs& args);
void Backward(const Stack& stack, const StackBackwardArgs& args);

}  // namespace fastrnn
