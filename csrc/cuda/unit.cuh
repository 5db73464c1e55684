// One hidden unit of one row in one step, forward and backward: where its numbers stand in memory,
// and what becomes of them in registers. The arithmetic is csrc/cell's; every kernel uses it
// through this file.
//
// Arrays of the layer's type T are read into float and rounded when they are written; what runs
// from step to step (c, dh, dc) is float throughout. A row past its length keeps its state.
#pragma once

#include "../cell/gru.h"
#include "../cell/lstm.h"
#include "../cell/rnn.h"
#include "device.cuh"

namespace fastrnn {
namespace cuda {

// One step of one direction, for N rows of H units and G gates. Gate k of unit j stands at
// [k * H + j] of a row. Only what a cell has is looked at: c is LSTM's, hidden_n is GRU's.
template <class T>
struct ForwardStep {
  int rows, hidden;
  bool relu;  // in place of tanh, in an RNN
  int64_t time;
  const int32_t* lengths;   // [N], or null
  const T* i2h_bias;        // [G*H]
  const T* h2h_bias;        // [G*H]
  const float* input_sum;   // [N, G*H] x * W_i2h'
  const float* hidden_sum;  // [N, G*H] h_prev * W_h2h'
  const T* h_prev;          // [N, H], may be h
  const T* c_0;             // [N, H] in place of c_prev in the first step, else null
  const float* c_prev;      // [N, H], may be c
  T* gates;                 // [N, G*H] activated, for backward; null, or may be input_sum
  T* hidden_n;              // [N, H] hidden_sum of the new gate with its bias; null as gates
  T* h;                     // [N, H]
  float* c;                 // [N, H]
  T* c_n;                   // [N, H] c once more in the last step, else null
  T* y;                     // [N, H], rows y_stride apart
  int64_t y_stride;
};

template <class T>
struct BackwardStep {
  int rows, hidden;
  bool relu;
  int64_t time, steps;
  bool reverse;
  const int32_t* lengths;  // [N], or null
  const T* gates;          // [N, G*H] activated
  const T* hidden_n;       // [N, H]
  const T* h_0;            // [N, H]
  const T* h_prev;         // [N, H], rows y_stride apart; not looked at in a row's first step
  const T* c_0;            // [N, H] in place of c_prev in the first step, else null
  const float* c_prev;     // [N, H]
  const float* c;          // [N, H]
  const T* y;              // [N, H], rows y_stride apart
  const T* dy;             // [N, H], rows y_stride apart
  int64_t y_stride;
  const T* dh_n;    // [N, H] in place of what dh and dc hold, in the last step, which is the
  const T* dc_n;    // first to be computed; else null
  float* dh;        // [N, H] in: from the step after; out, where wanted: the share of the gradient
  bool dh_wanted;   // of h_prev that does not pass the gates
  float* dc;        // [N, H] in: from the step after, out: for the step before
  T* dc_0;          // [N, H] dc once more in the first step, else null
  T* dgates_x;      // [N, G*H] gradients of the input's share
  T* dgates_h;      // [N, G*H] gradients of the hidden state's share; GRU's differ
  T* dgates_first;  // [N, G*H] dgates_h again, in a row's first step
};

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

// Both shares of a unit's pre-activations, biases included.
template <int kGates>
struct Shares {
  float input[kGates];
  float hidden[kGates];
};

// What a unit hands to the next step; h is a number of the layer's type.
struct UnitState {
  float h, c;
};

// What backward wants to see again: the activated gates, and GRU's hidden share of the new gate.
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

// The gradients of a unit's pre-activations; only GRU's hidden share has its own.
template <int kGates>
struct GateGradients {
  float x[kGates];
  float h[kGates];
};

// Cells: Forward makes the next state of the one it is given, in which h is not yet rounded.
// Backward is given the gradient of h, and that of c, which it makes that of c_prev; it returns the
// share of h_prev's gradient that does not pass the gates. Load reads what Backward looks at.

struct LstmStep {
  static constexpr int kGates = 4;
  static constexpr bool kHasCell = true;
  static constexpr bool kSharesDiffer = false;

  template <class T>
  static FASTRNN_DEVICE void Forward(const ForwardStep<T>&, const Shares<kGates>& shares,
                                     UnitState* state, Activated<kGates>* activated) {
    cell::LstmGates gates = {shares.input[0] + shares.hidden[0], shares.input[1] + shares.hidden[1],
                             shares.input[2] + shares.hidden[2],
                             shares.input[3] + shares.hidden[3]};
    state->h = cell::LstmForward(&gates, state->c, &state->c);
    *activated = {{gates.i, gates.f, gates.g, gates.o}, 0.0f};
  }

  template <class T>
  static FASTRNN_DEVICE void Load(const BackwardStep<T>& p, Place at, bool, Seen<kGates>* seen) {
    seen->c = p.c[at.state()];
    seen->c_prev = p.c_0 != nullptr ? ToFloat(p.c_0[at.state()]) : p.c_prev[at.state()];
  }
  template <class T>
  static FASTRNN_DEVICE float Backward(const BackwardStep<T>&, const Seen<kGates>& seen, float dh,
                                       float* dc, GateGradients<kGates>* d) {
    const float* gates = seen.activated.gates;
    const cell::LstmGates of_gates =
        cell::LstmBackward({gates[0], gates[1], gates[2], gates[3]}, seen.c_prev, seen.c, dh, dc);
    d->x[0] = of_gates.i;
    d->x[1] = of_gates.f;
    d->x[2] = of_gates.g;
    d->x[3] = of_gates.o;
    return 0.0f;
  }
};

struct GruStep {
  static constexpr int kGates = 3;
  static constexpr bool kHasCell = false;
  static constexpr bool kSharesDiffer = true;

  template <class T>
  static FASTRNN_DEVICE void Forward(const ForwardStep<T>&, const Shares<kGates>& shares,
                                     UnitState* state, Activated<kGates>* activated) {
    cell::GruGates gates = {shares.input[0] + shares.hidden[0], shares.input[1] + shares.hidden[1],
                            shares.input[2]};
    state->h = cell::GruForward(&gates, shares.hidden[2], state->h);
    *activated = {{gates.r, gates.z, gates.n}, shares.hidden[2]};
  }

  template <class T>
  static FASTRNN_DEVICE void Load(const BackwardStep<T>& p, Place at, bool first,
                                  Seen<kGates>* seen) {
    seen->activated.hidden_n = ToFloat(p.hidden_n[at.state()]);
    seen->h_prev = ToFloat(first ? p.h_0[at.state()] : p.h_prev[at.strided(p.y_stride)]);
  }
  template <class T>
  static FASTRNN_DEVICE float Backward(const BackwardStep<T>&, const Seen<kGates>& seen, float dh,
                                       float*, GateGradients<kGates>* d) {
    const float* gates = seen.activated.gates;
    const cell::GruGates of_gates = cell::GruBackward(
        {gates[0], gates[1], gates[2]}, seen.activated.hidden_n, seen.h_prev, &dh, &d->h[2]);
    d->x[0] = d->h[0] = of_gates.r;
    d->x[1] = d->h[1] = of_gates.z;
    d->x[2] = of_gates.n;
    return dh;
  }
};

struct RnnStep {
  static constexpr int kGates = 1;
  static constexpr bool kHasCell = false;
  static constexpr bool kSharesDiffer = false;

  template <class T>
  static FASTRNN_DEVICE void Forward(const ForwardStep<T>& p, const Shares<kGates>& shares,
                                     UnitState* state, Activated<kGates>*) {
    const float a = shares.input[0] + shares.hidden[0];
    state->h = p.relu ? cell::ReluActivation::Forward(a) : cell::TanhActivation::Forward(a);
  }

  template <class T>
  static FASTRNN_DEVICE void Load(const BackwardStep<T>& p, Place at, bool, Seen<kGates>* seen) {
    seen->h = ToFloat(p.y[at.strided(p.y_stride)]);
  }
  template <class T>
  static FASTRNN_DEVICE float Backward(const BackwardStep<T>& p, const Seen<kGates>& seen, float dh,
                                       float*, GateGradients<kGates>* d) {
    d->x[0] = p.relu ? cell::ReluActivation::Backward(seen.h, dh)
                     : cell::TanhActivation::Backward(seen.h, dh);
    return 0.0f;
  }
};

// ---- forward, from memory and into it -----------------------------------------------------------

template <class T>
FASTRNN_DEVICE bool IsActive(const ForwardStep<T>& p, Place at) {
  return p.lengths == nullptr || p.time < p.lengths[at.row];
}

template <class Step, class T>
FASTRNN_DEVICE UnitState PreviousState(const ForwardStep<T>& p, Place at) {
  UnitState state = {ToFloat(p.h_prev[at.state()]), 0.0f};
  if (Step::kHasCell) {
    state.c = p.c_0 != nullptr ? ToFloat(p.c_0[at.state()]) : p.c_prev[at.state()];
  }
  return state;
}

template <int kGates, class T>
FASTRNN_DEVICE float InputShare(const ForwardStep<T>& p, Place at, int k) {
  return p.input_sum[at.gate<kGates>(k)] + ToFloat(p.i2h_bias[at.bias(k)]);
}

// The step itself; a row past its length keeps its state. Returns the output.
template <class Step, class T>
FASTRNN_DEVICE T Advance(const ForwardStep<T>& p, bool active, const Shares<Step::kGates>& shares,
                         UnitState* state, Activated<Step::kGates>* activated) {
  if (!active) return FromFloat<T>(0.0f);
  Step::Forward(p, shares, state, activated);
  const T h = FromFloat<T>(state->h);
  state->h = ToFloat(h);
  return h;
}

template <class Step, class T>
FASTRNN_DEVICE void StoreActivated(const ForwardStep<T>& p, Place at,
                                   const Activated<Step::kGates>& activated) {
  if constexpr (Step::kGates > 1) {
    if (p.gates == nullptr) return;
#pragma unroll
    for (int k = 0; k < Step::kGates; ++k) {
      p.gates[at.gate<Step::kGates>(k)] = FromFloat<T>(activated.gates[k]);
    }
    if (Step::kSharesDiffer) p.hidden_n[at.state()] = FromFloat<T>(activated.hidden_n);
  }
}

template <class Step, class T>
FASTRNN_DEVICE void StoreState(const ForwardStep<T>& p, Place at, UnitState state) {
  p.h[at.state()] = FromFloat<T>(state.h);
  if (!Step::kHasCell) return;
  p.c[at.state()] = state.c;
  if (p.c_n != nullptr) p.c_n[at.state()] = FromFloat<T>(state.c);
}

// ---- backward -----------------------------------------------------------------------------------

// Whether the row takes part in the step, and whether it is the first one that does.
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
  Step::Load(p, at, first, seen);
  if constexpr (Step::kGates > 1) {
#pragma unroll
    for (int k = 0; k < Step::kGates; ++k) {
      seen->activated.gates[k] = ToFloat(p.gates[at.gate<Step::kGates>(k)]);
    }
  }
}

template <class Step, class T>
FASTRNN_DEVICE void StoreGradients(const BackwardStep<T>& p, Place at, bool first,
                                   const GateGradients<Step::kGates>& d) {
#pragma unroll
  for (int k = 0; k < Step::kGates; ++k) {
    const size_t i = at.gate<Step::kGates>(k);
    const T of_hidden = FromFloat<T>(Step::kSharesDiffer ? d.h[k] : d.x[k]);
    p.dgates_x[i] = FromFloat<T>(d.x[k]);
    if (Step::kSharesDiffer) p.dgates_h[i] = of_hidden;
    if (first) p.dgates_first[i] = of_hidden;
  }
}

}  // namespace cuda
}  // namespace fastrnn
