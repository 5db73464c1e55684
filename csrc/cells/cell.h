// What all cells share: the numbers of one hidden unit of one row in one step, in registers.
//
// A cell is a struct with
//   kGates        G
//   kHasC         whether it has a cell state c beside h
//   kSplitShares  whether the input's and the hidden state's share of the last gate have different
//                 gradients. Only such cells read h_prev; backward also reads hidden_n
//   kKeepsGates   whether backward reads the activated gates (and c), or only the output. Layers of
//                 cells that keep them can be layer-normalised
//   Forward       replaces a state by the next one; its first argument is CellOptions
//   Backward      takes the gradients of h and c, and replaces that of c by that of c_prev; returns
//                 the share of h_prev's gradient that does not pass the gates
// The first argument of Backward is CellOptions' relu.
#pragma once

#include "../rnn.h"
#include "math.h"

namespace fastrnn {

// Options of a layer that its cells' arithmetic depends on. Real is the type of the arithmetic,
// here and below: the accumulator of the layer's type (layout.h), which is float on CUDA.
template <class Real>
struct CellOptions {
  // ReLU instead of tanh in the vanilla RNN: an argument rather than two cells, because CUDA's
  // kernels are compiled for each cell.
  bool relu;
  Clip<Real> clip;  // for ClippedLstmCell
};

// Both shares of a unit's pre-activations, including biases.
template <int kGates, class Real = float>
struct Shares {
  Real input[kGates];
  Real hidden[kGates];

  FASTRNN_HOST_DEVICE Real Sum(int k) const { return input[k] + hidden[k]; }
};

// A unit's state after a step.
template <class Real>
struct UnitState {
  Real h, c;
};

// What forward keeps for backward: the activated gates and, if shares are split, the hidden state's
// share of the last gate.
template <int kGates, class Real = float>
struct Activated {
  Real gates[kGates];
  Real hidden_n;
};

// What backward reads of a step. Only the fields that the cell needs are loaded.
template <int kGates, class Real = float>
struct Seen {
  Activated<kGates, Real> activated;
  Real h, h_prev, c, c_prev;
};

// The gradients of a unit's pre-activations; h only if shares are split.
template <int kGates, class Real = float>
struct GateGradients {
  Real x[kGates];
  Real h[kGates];
};

}  // namespace fastrnn
