// The kernels of a step: its cells for all rows, forward and backward.
//
// A step's kernel moves a few hundred kilobytes, which stay in the L2 cache, in less time than its
// launch takes; so one thread does one hidden unit of one row, neighbours in a warp are neighbours
// in memory, and there is nothing more to it.
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

constexpr int kStepThreads = 128;
constexpr unsigned kMaxGridRows = 65535;  // of a grid's second dimension

// One step of one direction, for N rows of H units and G gates. Gate k of unit j stands at
// [k * H + j] of a row. Only what a cell has is looked at: c is LSTM's, hidden_n is GRU's.
template <class T>
struct ForwardStep {
  int rows, hidden;
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

// Both shares of a gate's pre-activation, with their biases.
template <int kGates, class T>
FASTRNN_DEVICE float InputShare(const ForwardStep<T>& p, Place at, int k) {
  return p.input_sum[at.gate<kGates>(k)] + ToFloat(p.i2h_bias[at.bias(k)]);
}
template <int kGates, class T>
FASTRNN_DEVICE float HiddenShare(const ForwardStep<T>& p, Place at, int k) {
  return p.hidden_sum[at.gate<kGates>(k)] + ToFloat(p.h2h_bias[at.bias(k)]);
}
template <int kGates, class T>
FASTRNN_DEVICE float PreActivation(const ForwardStep<T>& p, Place at, int k) {
  return InputShare<kGates>(p, at, k) + HiddenShare<kGates>(p, at, k);
}

// The gradients of a unit's pre-activations; only GRU's hidden share has its own.
template <int kGates>
struct GateGradients {
  float x[kGates];
  float h[kGates];
};

struct LstmStep {
  static constexpr int kGates = 4;
  static constexpr bool kSharesDiffer = false;

  template <class Arguments>
  static FASTRNN_DEVICE float PreviousC(const Arguments& p, Place at) {
    return p.c_0 != nullptr ? ToFloat(p.c_0[at.state()]) : p.c_prev[at.state()];
  }
  template <class T>
  static FASTRNN_DEVICE void StoreC(const ForwardStep<T>& p, Place at, float c) {
    p.c[at.state()] = c;
    if (p.c_n != nullptr) p.c_n[at.state()] = FromFloat<T>(c);
  }
  template <class T>
  static FASTRNN_DEVICE float NextDc(const BackwardStep<T>& p, Place at) {
    return p.dc_n != nullptr ? ToFloat(p.dc_n[at.state()]) : p.dc[at.state()];
  }
  template <class T>
  static FASTRNN_DEVICE void StoreDc(const BackwardStep<T>& p, Place at, float dc) {
    p.dc[at.state()] = dc;
    if (p.dc_0 != nullptr) p.dc_0[at.state()] = FromFloat<T>(dc);
  }

  template <class T>
  static FASTRNN_DEVICE float Forward(const ForwardStep<T>& p, Place at) {
    cell::LstmGates gates = {PreActivation<kGates>(p, at, 0), PreActivation<kGates>(p, at, 1),
                             PreActivation<kGates>(p, at, 2), PreActivation<kGates>(p, at, 3)};
    float c;
    const float h = cell::LstmForward(&gates, PreviousC(p, at), &c);
    StoreC(p, at, c);
    if (p.gates != nullptr) {
      p.gates[at.gate<kGates>(0)] = FromFloat<T>(gates.i);
      p.gates[at.gate<kGates>(1)] = FromFloat<T>(gates.f);
      p.gates[at.gate<kGates>(2)] = FromFloat<T>(gates.g);
      p.gates[at.gate<kGates>(3)] = FromFloat<T>(gates.o);
    }
    return h;
  }
  template <class T>
  static FASTRNN_DEVICE void Keep(const ForwardStep<T>& p, Place at) {
    StoreC(p, at, PreviousC(p, at));
  }

  template <class T>
  static FASTRNN_DEVICE float Backward(const BackwardStep<T>& p, Place at, bool, float dh,
                                       GateGradients<kGates>* d) {
    const cell::LstmGates gates = {
        ToFloat(p.gates[at.gate<kGates>(0)]), ToFloat(p.gates[at.gate<kGates>(1)]),
        ToFloat(p.gates[at.gate<kGates>(2)]), ToFloat(p.gates[at.gate<kGates>(3)])};
    float dc = NextDc(p, at);
    const cell::LstmGates of_gates =
        cell::LstmBackward(gates, PreviousC(p, at), p.c[at.state()], dh, &dc);
    StoreDc(p, at, dc);
    d->x[0] = of_gates.i;
    d->x[1] = of_gates.f;
    d->x[2] = of_gates.g;
    d->x[3] = of_gates.o;
    return 0.0f;
  }
  template <class T>
  static FASTRNN_DEVICE void Keep(const BackwardStep<T>& p, Place at) {
    StoreDc(p, at, NextDc(p, at));
  }
};

struct GruStep {
  static constexpr int kGates = 3;
  static constexpr bool kSharesDiffer = true;

  template <class T>
  static FASTRNN_DEVICE float Forward(const ForwardStep<T>& p, Place at) {
    cell::GruGates gates = {PreActivation<kGates>(p, at, 0), PreActivation<kGates>(p, at, 1),
                            InputShare<kGates>(p, at, 2)};
    const float hidden_n = HiddenShare<kGates>(p, at, 2);
    const float h = cell::GruForward(&gates, hidden_n, ToFloat(p.h_prev[at.state()]));
    if (p.gates != nullptr) {
      p.gates[at.gate<kGates>(0)] = FromFloat<T>(gates.r);
      p.gates[at.gate<kGates>(1)] = FromFloat<T>(gates.z);
      p.gates[at.gate<kGates>(2)] = FromFloat<T>(gates.n);
      p.hidden_n[at.state()] = FromFloat<T>(hidden_n);
    }
    return h;
  }

  template <class T>
  static FASTRNN_DEVICE float Backward(const BackwardStep<T>& p, Place at, bool first, float dh,
                                       GateGradients<kGates>* d) {
    const cell::GruGates gates = {ToFloat(p.gates[at.gate<kGates>(0)]),
                                  ToFloat(p.gates[at.gate<kGates>(1)]),
                                  ToFloat(p.gates[at.gate<kGates>(2)])};
    const T h_prev = first ? p.h_0[at.state()] : p.h_prev[at.strided(p.y_stride)];
    float d_hidden_n;
    const cell::GruGates of_gates = cell::GruBackward(gates, ToFloat(p.hidden_n[at.state()]),
                                                      ToFloat(h_prev), &dh, &d_hidden_n);
    d->x[0] = d->h[0] = of_gates.r;
    d->x[1] = d->h[1] = of_gates.z;
    d->x[2] = of_gates.n;
    d->h[2] = d_hidden_n;
    return dh;
  }

  template <class Arguments>
  static FASTRNN_DEVICE void Keep(const Arguments&, Place) {}
};

template <class Activation>
struct RnnStep {
  static constexpr int kGates = 1;
  static constexpr bool kSharesDiffer = false;

  template <class T>
  static FASTRNN_DEVICE float Forward(const ForwardStep<T>& p, Place at) {
    return Activation::Forward(PreActivation<kGates>(p, at, 0));
  }

  template <class T>
  static FASTRNN_DEVICE float Backward(const BackwardStep<T>& p, Place at, bool, float dh,
                                       GateGradients<kGates>* d) {
    d->x[0] = Activation::Backward(ToFloat(p.y[at.strided(p.y_stride)]), dh);
    return 0.0f;
  }

  template <class Arguments>
  static FASTRNN_DEVICE void Keep(const Arguments&, Place) {}
};

template <class Step, class T>
FASTRNN_DEVICE void Unit(const ForwardStep<T>& p, Place at) {
  const bool active = p.lengths == nullptr || p.time < p.lengths[at.row];
  T h, y;
  if (active) {
    h = y = FromFloat<T>(Step::Forward(p, at));
  } else {
    Step::Keep(p, at);
    h = p.h_prev[at.state()];
    y = FromFloat<T>(0.0f);
  }
  p.h[at.state()] = h;
  p.y[at.strided(p.y_stride)] = y;
}

template <class Step, class T>
FASTRNN_DEVICE void Unit(const BackwardStep<T>& p, Place at) {
  const int64_t length = p.lengths == nullptr ? p.steps : p.lengths[at.row];
  const int64_t last_time = (length < p.steps ? length : p.steps) - 1;
  const bool active = p.time <= last_time;
  const bool first = active && p.time == (p.reverse ? last_time : 0);
  const float dh_next = p.dh_n != nullptr ? ToFloat(p.dh_n[at.state()]) : p.dh[at.state()];
  float dh_prev = dh_next;
  GateGradients<Step::kGates> d = {};
  if (active) {
    const float dh = ToFloat(p.dy[at.strided(p.y_stride)]) + dh_next;
    dh_prev = Step::Backward(p, at, first, dh, &d);
  } else {
    Step::Keep(p, at);
  }
  if (p.dh_wanted) p.dh[at.state()] = dh_prev;
#pragma unroll
  for (int k = 0; k < Step::kGates; ++k) {
    const size_t i = at.gate<Step::kGates>(k);
    const T of_hidden = FromFloat<T>(Step::kSharesDiffer ? d.h[k] : d.x[k]);
    p.dgates_x[i] = FromFloat<T>(d.x[k]);
    if (Step::kSharesDiffer) p.dgates_h[i] = of_hidden;
    if (first) p.dgates_first[i] = of_hidden;
  }
}

// Launched with StepGrid. The loop is for batches beyond a grid's height.
template <class Step, class Arguments>
__global__ void __launch_bounds__(kStepThreads) StepKernel(const Arguments p) {
  const int unit = static_cast<int>(blockIdx.x * kStepThreads + threadIdx.x);
  if (unit >= p.hidden) return;
  for (int row = static_cast<int>(blockIdx.y); row < p.rows; row += static_cast<int>(gridDim.y)) {
    Unit<Step>(p, {row, unit, p.hidden});
  }
}

inline dim3 StepGrid(int rows, int hidden) {
  const unsigned height = static_cast<unsigned>(rows);
  return dim3((static_cast<unsigned>(hidden) + kStepThreads - 1) / kStepThreads,
              height < kMaxGridRows ? height : kMaxGridRows);
}

}  // namespace cuda
}  // namespace fastrnn
