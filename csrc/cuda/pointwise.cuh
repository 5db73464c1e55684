// The kernels of the stepwise backend: a step's cells for all rows, forward and backward, and the
// sums over rows that the bias gradients are.
//
// A step's kernel moves a few hundred kilobytes, which stay in the L2 cache, in less time than its
// launch takes; so one thread does one hidden unit of one row, neighbours in a warp are neighbours
// in memory, and there is nothing more to it.
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
struct ForwardStep {
  int rows, hidden;
  bool keep;                // write gates and hidden_n, for backward
  const float* i2h_bias;    // [G*H]
  const float* h2h_bias;    // [G*H]
  const float* hidden_sum;  // [N, G*H] h_prev * W_h2h'
  float* gates;             // [N, G*H] in: x * W_i2h', out where kept: activated gates
  const float* h_prev;      // [N, H], may be h
  const float* c_prev;      // [N, H], may be c
  float* hidden_n;          // [N, H] hidden_sum of the new gate, with its bias
  float* h;                 // [N, H]
  float* c;                 // [N, H]
  float* y;                 // [N, H], rows y_stride apart
  int64_t y_stride;
};

struct BackwardStep {
  int rows, hidden;
  const float* gates;     // [N, G*H] activated
  const float* hidden_n;  // [N, H]
  const float* h_prev;    // [N, H], rows h_prev_stride apart
  int64_t h_prev_stride;
  const float* c_prev;  // [N, H]
  const float* c;       // [N, H]
  const float* y;       // [N, H], rows y_stride apart
  const float* dy;      // [N, H], rows y_stride apart
  int64_t y_stride;
  const float* dh_next;  // [N, H] from the step that was computed after this one
  const float* dc_next;  // [N, H], may be dc
  float* dh;             // [N, H], may be dh_next; GRU's share that does not pass the gates
  float* dc;             // [N, H]
  float* dgates_x;       // [N, G*H] gradients of the input's share
  float* dgates_h;       // [N, G*H] gradients of the hidden state's share; GRU's differ
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
template <int kGates>
FASTRNN_DEVICE float InputShare(const ForwardStep& p, Place at, int k) {
  return p.gates[at.gate<kGates>(k)] + p.i2h_bias[at.bias(k)];
}
template <int kGates>
FASTRNN_DEVICE float HiddenShare(const ForwardStep& p, Place at, int k) {
  return p.hidden_sum[at.gate<kGates>(k)] + p.h2h_bias[at.bias(k)];
}
template <int kGates>
FASTRNN_DEVICE float PreActivation(const ForwardStep& p, Place at, int k) {
  return InputShare<kGates>(p, at, k) + HiddenShare<kGates>(p, at, k);
}

struct LstmStep {
  static constexpr int kGates = 4;

  static FASTRNN_DEVICE float Forward(const ForwardStep& p, Place at) {
    cell::LstmGates gates = {PreActivation<kGates>(p, at, 0), PreActivation<kGates>(p, at, 1),
                             PreActivation<kGates>(p, at, 2), PreActivation<kGates>(p, at, 3)};
    float c;
    const float h = cell::LstmForward(&gates, p.c_prev[at.state()], &c);
    p.c[at.state()] = c;
    if (p.keep) {
      p.gates[at.gate<kGates>(0)] = gates.i;
      p.gates[at.gate<kGates>(1)] = gates.f;
      p.gates[at.gate<kGates>(2)] = gates.g;
      p.gates[at.gate<kGates>(3)] = gates.o;
    }
    return h;
  }

  static FASTRNN_DEVICE void Backward(const BackwardStep& p, Place at, float dh) {
    const cell::LstmGates gates = {p.gates[at.gate<kGates>(0)], p.gates[at.gate<kGates>(1)],
                                   p.gates[at.gate<kGates>(2)], p.gates[at.gate<kGates>(3)]};
    const size_t i = at.state();
    float dc = p.dc_next[i];
    const cell::LstmGates d = cell::LstmBackward(gates, p.c_prev[i], p.c[i], dh, &dc);
    p.dc[i] = dc;
    p.dgates_x[at.gate<kGates>(0)] = d.i;
    p.dgates_x[at.gate<kGates>(1)] = d.f;
    p.dgates_x[at.gate<kGates>(2)] = d.g;
    p.dgates_x[at.gate<kGates>(3)] = d.o;
  }
};

struct GruStep {
  static constexpr int kGates = 3;

  static FASTRNN_DEVICE float Forward(const ForwardStep& p, Place at) {
    cell::GruGates gates = {PreActivation<kGates>(p, at, 0), PreActivation<kGates>(p, at, 1),
                            InputShare<kGates>(p, at, 2)};
    const float hidden_n = HiddenShare<kGates>(p, at, 2);
    const float h = cell::GruForward(&gates, hidden_n, p.h_prev[at.state()]);
    if (p.keep) {
      p.gates[at.gate<kGates>(0)] = gates.r;
      p.gates[at.gate<kGates>(1)] = gates.z;
      p.gates[at.gate<kGates>(2)] = gates.n;
      p.hidden_n[at.state()] = hidden_n;
    }
    return h;
  }

  static FASTRNN_DEVICE void Backward(const BackwardStep& p, Place at, float dh) {
    const cell::GruGates gates = {p.gates[at.gate<kGates>(0)], p.gates[at.gate<kGates>(1)],
                                  p.gates[at.gate<kGates>(2)]};
    float d_hidden_n;
    const cell::GruGates d = cell::GruBackward(
        gates, p.hidden_n[at.state()], p.h_prev[at.strided(p.h_prev_stride)], &dh, &d_hidden_n);
    p.dh[at.state()] = dh;
    p.dgates_x[at.gate<kGates>(0)] = p.dgates_h[at.gate<kGates>(0)] = d.r;
    p.dgates_x[at.gate<kGates>(1)] = p.dgates_h[at.gate<kGates>(1)] = d.z;
    p.dgates_x[at.gate<kGates>(2)] = d.n;
    p.dgates_h[at.gate<kGates>(2)] = d_hidden_n;
  }
};

template <class Activation>
struct RnnStep {
  static constexpr int kGates = 1;

  static FASTRNN_DEVICE float Forward(const ForwardStep& p, Place at) {
    return Activation::Forward(PreActivation<kGates>(p, at, 0));
  }

  static FASTRNN_DEVICE void Backward(const BackwardStep& p, Place at, float dh) {
    p.dgates_x[at.gate<kGates>(0)] = Activation::Backward(p.y[at.strided(p.y_stride)], dh);
  }
};

// Launched with StepGrid. The loop is for batches beyond a grid's height.
template <class Step>
__global__ void __launch_bounds__(kStepThreads) ForwardKernel(const ForwardStep p) {
  const int unit = static_cast<int>(blockIdx.x * kStepThreads + threadIdx.x);
  if (unit >= p.hidden) return;
  for (int row = static_cast<int>(blockIdx.y); row < p.rows; row += static_cast<int>(gridDim.y)) {
    const Place at = {row, unit, p.hidden};
    const float h = Step::Forward(p, at);
    p.h[at.state()] = h;
    p.y[at.strided(p.y_stride)] = h;
  }
}

template <class Step>
__global__ void __launch_bounds__(kStepThreads) BackwardKernel(const BackwardStep p) {
  const int unit = static_cast<int>(blockIdx.x * kStepThreads + threadIdx.x);
  if (unit >= p.hidden) return;
  for (int row = static_cast<int>(blockIdx.y); row < p.rows; row += static_cast<int>(gridDim.y)) {
    const Place at = {row, unit, p.hidden};
    Step::Backward(p, at, p.dy[at.strided(p.y_stride)] + p.dh_next[at.state()]);
  }
}

inline dim3 StepGrid(int rows, int hidden) {
  const unsigned height = static_cast<unsigned>(rows);
  return dim3((static_cast<unsigned>(hidden) + kStepThreads - 1) / kStepThreads,
              height < kMaxGridRows ? height : kMaxGridRows);
}

// ---- sums over rows -----------------------------------------------------------------------------
//
// In two launches and a fixed order, so that the same inputs give the same bits: SumRowsKernel adds
// up parts of the rows, SumPartsKernel adds up the parts.

constexpr int kSumThreads = 8;  // threads that share a column of a part

// The most parts that a matrix is cut into, and the rows that a part should have at least.
constexpr int64_t kMaxParts = 64;
constexpr int64_t kMinRowsPerPart = 64;

inline int64_t SumParts(int64_t rows) {
  const int64_t parts = (rows + kMinRowsPerPart - 1) / kMinRowsPerPart;
  return parts < kMaxParts ? parts : kMaxParts;
}

// partial[part, j] = sum of matrix[row, j] over the rows of the part. Blocks of kWarp x kSumThreads
// in a grid of columns / kWarp, rounded up, by parts.
__global__ void __launch_bounds__(kWarp* kSumThreads)
    SumRowsKernel(const float* matrix, int64_t rows, int64_t columns, int64_t rows_per_part,
                  float* partial) {
  FASTRNN_SHARED(float, sums, kSumThreads* kWarp);
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kWarp + threadIdx.x;
  const int64_t begin = blockIdx.y * rows_per_part;
  const int64_t end = min(begin + rows_per_part, rows);
  float sum = 0.0f;
  if (column < columns) {
    for (int64_t row = begin + threadIdx.y; row < end; row += kSumThreads) {
      sum += matrix[row * columns + column];
    }
  }
  sums[threadIdx.y * kWarp + threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y == 0 && column < columns) {
    for (int i = 1; i < kSumThreads; ++i) sum += sums[i * kWarp + threadIdx.x];
    partial[blockIdx.y * columns + column] = sum;
  }
}

// sums[j] = sum of partial[part, j] over the parts, plus what it holds where accumulate is set;
// copy receives the same, unless it is null.
__global__ void __launch_bounds__(kStepThreads)
    SumPartsKernel(const float* partial, int parts, int64_t columns, bool accumulate, float* sums,
                   float* copy) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kStepThreads + threadIdx.x;
  if (column >= columns) return;
  float sum = accumulate ? sums[column] : 0.0f;
  for (int part = 0; part < parts; ++part) sum += partial[part * columns + column];
  sums[column] = sum;
  if (copy != nullptr) copy[column] = sum;
}

}  // namespace cuda
}  // namespace fastrnn
