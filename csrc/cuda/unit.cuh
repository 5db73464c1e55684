// One hidden unit of one row in one step, forward and backward: where its numbers are in memory,
// and what a thread computes from them. The arithmetic is csrc/cells'; every kernel uses it through
// this file.
//
// Arrays of the layer's type T are read as floats and rounded when they are written. What is
// carried from step to step (c, dh, dc) is float throughout. A row past its length keeps its state.
#pragma once

#include "../cells/gru.h"
#include "../cells/lstm.h"
#include "../cells/rnn.h"
#include "../error.h"
#include "../rnn.h"
#include "../step.h"
#include "runtime/device.cuh"

namespace fastrnn {
namespace cuda {

// Calls body with the mode's cell: the table of the cells that the kernels are instantiated for.
template <class Body>
auto ForCell(Mode mode, Body body) {
  switch (mode) {
    case Mode::kLstm:
      return body(LstmCell());
    case Mode::kGru:
      return body(GruCell());
    case Mode::kRnnTanh:
    case Mode::kRnnRelu:
      return body(RnnCell());
  }
  throw InvalidArgument("the CUDA backend has no such cell", __FILE__, __LINE__);
}

// The unit that a thread works on.
struct Place {
  int row, unit, hidden;

  FASTRNN_DEVICE size_t state() const { return static_cast<size_t>(row) * hidden + unit; }
  FASTRNN_DEVICE size_t strided(int64_t stride) const { return row * stride + unit; }
  template <int kGates>
  FASTRNN_DEVICE size_t gate(int k) const {
    return (static_cast<size_t>(row) * kGates + k) * hidden + unit;
  }
  FASTRNN_DEVICE int bias(int k) const { return k * hidden + unit; }
};

// ---- forward ------------------------------------------------------------------------------------

template <class T>
FASTRNN_DEVICE bool IsActive(const ForwardStep<T>& p, Place at) {
  return p.lengths == nullptr || p.time < p.lengths[at.row];
}

template <class Step, class T>
FASTRNN_DEVICE UnitState<float> PreviousState(const ForwardStep<T>& p, Place at) {
  UnitState<float> state = {ToFloat(p.h_prev[at.state()]), 0.0f};
  if (Step::kHasC) {
    state.c = p.c_0 != nullptr ? ToFloat(p.c_0[at.state()]) : p.c_prev[at.state()];
  }
  return state;
}

template <int kGates, class T>
FASTRNN_DEVICE float InputShare(const ForwardStep<T>& p, Place at, int k) {
  return p.input_sum[at.gate<kGates>(k)] + ToFloat(p.i2h_bias[at.bias(k)]);
}

// Computes the step, and returns the output.
template <class Step, class T>
FASTRNN_DEVICE T Advance(const ForwardStep<T>& p, bool active, const Shares<Step::kGates>& shares,
                         UnitState<float>* state, Activated<Step::kGates>* activated) {
  if (!active) return FromFloat<T>(0.0f);
  Step::Forward(p.options, shares, state, activated);
  const T h = FromFloat<T>(state->h);
  state->h = ToFloat(h);
  return h;
}

// gates and hidden_n: those of the unit, in the step.
template <class Step, class T>
FASTRNN_DEVICE void StoreActivated(T* gates, T* hidden_n, int hidden,
                                   const Activated<Step::kGates>& activated) {
  if constexpr (Step::kKeepsGates) {
#pragma unroll
    for (int k = 0; k < Step::kGates; ++k) gates[k * hidden] = FromFloat<T>(activated.gates[k]);
    if (Step::kSplitShares) *hidden_n = FromFloat<T>(activated.hidden_n);
  }
}

template <class Step, class T>
FASTRNN_DEVICE void StoreActivated(const ForwardStep<T>& p, Place at,
                                   const Activated<Step::kGates>& activated) {
  if (p.gates == nullptr) return;
  T* gates = p.gates + at.template gate<Step::kGates>(0);
  StoreActivated<Step>(gates, Step::kSplitShares ? p.hidden_n + at.state() : nullptr, at.hidden,
                       activated);
}

template <class Step, class T>
FASTRNN_DEVICE void StoreState(const ForwardStep<T>& p, Place at, UnitState<float> state) {
  p.h[at.state()] = FromFloat<T>(state.h);
  if (!Step::kHasC) return;
  p.c[at.state()] = state.c;
  if (p.c_n != nullptr) p.c_n[at.state()] = FromFloat<T>(state.c);
}

// ---- backward -----------------------------------------------------------------------------------

// Whether the row takes part in the step, and whether this is the row's first step.
struct Presence {
  bool active, first;
};
template <class T>
FASTRNN_DEVICE Presence PresenceOf(const BackwardStep<T>& p, Place at) {
  const int64_t length = p.lengths == nullptr ? p.steps : p.lengths[at.row];
  const int64_t last_time = (length < p.steps ? length : p.steps) - 1;
  const bool active = p.time <= last_time;
  return {active, active && p.time == (p.reverse ? last_time : 0)};
}

template <class Step, class T>
FASTRNN_DEVICE void LoadSeen(const BackwardStep<T>& p, Place at, bool first,
                             Seen<Step::kGates>* seen) {
  if constexpr (Step::kKeepsGates) {
#pragma unroll
    for (int k = 0; k < Step::kGates; ++k) {
      seen->activated.gates[k] = ToFloat(p.gates[at.gate<Step::kGates>(k)]);
    }
  } else {
    seen->h = ToFloat(p.y[at.strided(p.y_stride)]);
  }
  if constexpr (Step::kHasC) {
    seen->c = p.c[at.state()];
    seen->c_prev = p.c_0 != nullptr ? ToFloat(p.c_0[at.state()]) : p.c_prev[at.state()];
  }
  if constexpr (Step::kSplitShares) {
    seen->activated.hidden_n = ToFloat(p.hidden_n[at.state()]);
    seen->h_prev = ToFloat(first ? p.h_0[at.state()] : p.h_prev[at.strided(p.y_stride)]);
  }
}

template <class Step, class T>
FASTRNN_DEVICE void StoreGradients(const BackwardStep<T>& p, Place at, bool first,
                                   const GateGradients<Step::kGates>& d) {
#pragma unroll
  for (int k = 0; k < Step::kGates; ++k) {
    const size_t i = at.gate<Step::kGates>(k);
    const T of_hidden = FromFloat<T>(Step::kSplitShares ? d.h[k] : d.x[k]);
    p.dgates_x[i] = FromFloat<T>(d.x[k]);
    if (Step::kSplitShares) p.dgates_h[i] = of_hidden;
    if (first) p.dgates_first[i] = of_hidden;
  }
}

}  // namespace cuda
}  // namespace fastrnn
