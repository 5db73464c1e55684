// What all cells share: the numbers of one hidden unit of one row in one step, in registers.
//
// A cell is a struct with
//   kGates        G
//   kHasC         whether it has a cell state c beside h
//   kSplitShares  whether the input's and the hidden state's share of the last gate have different
//                 gradients; backward then also reads hidden_n and h_prev
//   kKeepsGates   whether backward reads the activated gates (and c), or only the output
//   Forward       replaces a state by the next one; its first argument is CellOptions
//   Backward      takes the gradients of h and c, and replaces that of c by that of c_prev; returns
//                 the share of h_prev's gradient that does not pass the gates
// The first argument of Backward is CellOptions' relu.
#pragma once

#include "../rnn.h"
#include "math.h"

namespace fastrnn {

// Options of a layer that its cells' arithmetic depends on.
struct CellOptions {
  // ReLU instead of tanh in the vanilla RNN: an argument rather than two cells, because CUDA's
  // kernels are compiled for each cell.
  bool relu;
  Clip clip;  // for ClippedLstmCell
};

// Both shares of a unit's pre-activations, including biases.
template <int kGates>
struct Shares {
  float input[kGates];
  float hidden[kGates];

  FASTRNN_HOST_DEVICE float Sum(int k) const { return input[k] + hidden[k]; }
};

// A unit's state after a step.
struct UnitState {
  float h, c;
};

// What forward keeps for backward: the activated gates and, if shares are split, the hidden state's
// share of the last gate.
template <int kGates>
struct Activated {
  float gates[kGates];
  float hidden_n;
};

// What backward reads of a step. Only the fields that the cell needs are loaded.
template <int kGates>
struct Seen {
  Activated<kGates> activated;
  float h, h_prev, c, c_prev;
};

// The gradients of a unit's pre-activations; h only if shares are split.
template <int kGates>
struct GateGradients {
  float x[kGates];
  float h[kGates];
};

}  // namespace fastrnn
