// What every cell is made of: the numbers of one hidden unit of one row in one step, in registers.
//
// A cell is a struct with
//   kGates        G
//   kHasC         whether it has a cell state c beside h
//   kSplitShares  whether the input's and the hidden state's share of the pre-activations have
//                 gradients of their own; backward then also sees hidden_n and h_prev
//   kKeepsGates   whether backward sees the activated gates (and c), or only the output
//   Forward       makes the next state of the one it is given
//   Backward      is given the gradient of h, and that of c, which it makes that of c_prev; returns
//                 the share of h_prev's gradient that does not pass the gates
// relu: of a vanilla RNN, whose other activation is tanh.
#pragma once

#include "math.h"

namespace fastrnn {

// Both shares of a unit's pre-activations, biases included.
template <int kGates>
struct Shares {
  float input[kGates];
  float hidden[kGates];

  FASTRNN_HOST_DEVICE float Sum(int k) const { return input[k] + hidden[k]; }
};

// What a unit hands to the next step.
struct UnitState {
  float h, c;
};

// What backward wants to see again: the activated gates, and where shares are split, the hidden
// state's share of the last gate.
template <int kGates>
struct Activated {
  float gates[kGates];
  float hidden_n;
};

// What backward sees of a step. Only what the cell needs is loaded.
template <int kGates>
struct Seen {
  Activated<kGates> activated;
  float h, h_prev, c, c_prev;
};

// The gradients of a unit's pre-activations; h only where shares are split.
template <int kGates>
struct GateGradients {
  float x[kGates];
  float h[kGates];
};

}  // namespace fastrnn
