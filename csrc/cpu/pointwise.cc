#include "pointwise.h"

#include <algorithm>

#include "../cell/gru.h"
#include "../cell/lstm.h"
#include "../cell/rnn.h"

// One binary serves every x86-64 processor: the loader picks the clone. They are named by feature
// and not by architecture, which would be matched against the maker's own model list. Elsewhere the
// baseline has vectors of its own.
#if defined(__x86_64__)
#define FASTRNN_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FASTRNN_CLONES
#endif

namespace fastrnn {
namespace cpu {

FASTRNN_CLONES void LstmForward(const LstmForwardRow& row, Units units) {
  const LstmForwardRow r = row;
  const int64_t H = units.hidden;
#pragma omp simd
  for (int64_t j = units.begin; j < units.end; ++j) {
    cell::LstmGates gates;
    gates.i = r.gates[j] + r.h2h[j] + r.bias[j];
    gates.f = r.gates[H + j] + r.h2h[H + j] + r.bias[H + j];
    gates.g = r.gates[2 * H + j] + r.h2h[2 * H + j] + r.bias[2 * H + j];
    gates.o = r.gates[3 * H + j] + r.h2h[3 * H + j] + r.bias[3 * H + j];
    float c;
    const float h = cell::LstmForward(&gates, r.c_prev[j], &c);
    r.gates[j] = gates.i;
    r.gates[H + j] = gates.f;
    r.gates[2 * H + j] = gates.g;
    r.gates[3 * H + j] = gates.o;
    r.c[j] = c;
    r.h[j] = h;
    r.y[j] = h;
  }
}

FASTRNN_CLONES void LstmBackward(const LstmBackwardRow& row, Units units) {
  const LstmBackwardRow r = row;
  const int64_t H = units.hidden;
#pragma omp simd
  for (int64_t j = units.begin; j < units.end; ++j) {
    const cell::LstmGates gates = {r.gates[j], r.gates[H + j], r.gates[2 * H + j],
                                   r.gates[3 * H + j]};
    float dc = r.dc[j];
    const cell::LstmGates d =
        cell::LstmBackward(gates, r.c_prev[j], r.c[j], r.dy[j] + r.dh[j], &dc);
    r.dc[j] = dc;
    r.dh[j] = 0.0f;
    r.dgates[j] = d.i;
    r.dgates[H + j] = d.f;
    r.dgates[2 * H + j] = d.g;
    r.dgates[3 * H + j] = d.o;
  }
}

FASTRNN_CLONES void GruForward(const GruForwardRow& row, Units units) {
  const GruForwardRow r = row;
  const int64_t H = units.hidden;
#pragma omp simd
  for (int64_t j = units.begin; j < units.end; ++j) {
    cell::GruGates gates;
    gates.r = r.gates[j] + r.h2h[j] + r.bias[j];
    gates.z = r.gates[H + j] + r.h2h[H + j] + r.bias[H + j];
    gates.n = r.gates[2 * H + j] + r.bias[2 * H + j];
    const float hidden_n = r.h2h[2 * H + j] + r.bias_hidden[j];
    const float h = cell::GruForward(&gates, hidden_n, r.h[j]);
    r.gates[j] = gates.r;
    r.gates[H + j] = gates.z;
    r.gates[2 * H + j] = gates.n;
    r.hidden_n[j] = hidden_n;
    r.h[j] = h;
    r.y[j] = h;
  }
}

FASTRNN_CLONES void GruBackward(const GruBackwardRow& row, Units units) {
  const GruBackwardRow r = row;
  const int64_t H = units.hidden;
#pragma omp simd
  for (int64_t j = units.begin; j < units.end; ++j) {
    const cell::GruGates gates = {r.gates[j], r.gates[H + j], r.gates[2 * H + j]};
    float dh = r.dy[j] + r.dh[j];
    float d_hidden_n;
    const cell::GruGates d = cell::GruBackward(gates, r.hidden_n[j], r.h_prev[j], &dh, &d_hidden_n);
    r.dh[j] = dh;
    r.dgates_x[j] = r.dgates_h[j] = d.r;
    r.dgates_x[H + j] = r.dgates_h[H + j] = d.z;
    r.dgates_x[2 * H + j] = d.n;
    r.dgates_h[2 * H + j] = d_hidden_n;
  }
}

namespace {

template <class Activation>
FASTRNN_HOST_DEVICE void RnnForward(const RnnForwardRow& row, Units units) {
  const RnnForwardRow r = row;
#pragma omp simd
  for (int64_t j = units.begin; j < units.end; ++j) {
    r.h[j] = r.y[j] = Activation::Forward(r.i2h[j] + r.h2h[j] + r.bias[j]);
  }
}

template <class Activation>
FASTRNN_HOST_DEVICE void RnnBackward(const RnnBackwardRow& row, Units units) {
  const RnnBackwardRow r = row;
#pragma omp simd
  for (int64_t j = units.begin; j < units.end; ++j) {
    r.dgates[j] = Activation::Backward(r.y[j], r.dy[j] + r.dh[j]);
    r.dh[j] = 0.0f;
  }
}

}  // namespace

FASTRNN_CLONES void RnnTanhForward(const RnnForwardRow& row, Units units) {
  RnnForward<cell::TanhActivation>(row, units);
}

FASTRNN_CLONES void RnnReluForward(const RnnForwardRow& row, Units units) {
  RnnForward<cell::ReluActivation>(row, units);
}

FASTRNN_CLONES void RnnTanhBackward(const RnnBackwardRow& row, Units units) {
  RnnBackward<cell::TanhActivation>(row, units);
}

FASTRNN_CLONES void RnnReluBackward(const RnnBackwardRow& row, Units units) {
  RnnBackward<cell::ReluActivation>(row, units);
}

FASTRNN_CLONES void SumRows(const float* matrix, int64_t rows, int64_t stride, int64_t begin,
                            int64_t end, bool accumulate, float* sums) {
  if (!accumulate) std::fill(sums + begin, sums + end, 0.0f);
  for (int64_t row = 0; row < rows; ++row) {
    const float* values = matrix + row * stride;
#pragma omp simd
    for (int64_t j = begin; j < end; ++j) sums[j] += values[j];
  }
}

}  // namespace cpu
}  // namespace fastrnn
