// The cells on a range of one row's hidden units, vectorised for the processor at hand. Every
// pointer is to the row's first hidden unit; gate k of unit j is at [k * hidden + j]. Arrays that a
// cell does not have (cells/cell.h) are null. Real is the layer's accumulator (layout.h).
#pragma once

#include <cstdint>

#include "../../cells/cell.h"

namespace fastrnn {
namespace cpu {

// The units [begin, end) of a row of `hidden` units.
struct Units {
  int64_t hidden, begin, end;
};

template <class Real>
struct ForwardRow {
  Real* gates;              // [G*H] in: input's share of the pre-activations, out: activated gates
  const Real* h2h;          // [G*H] hidden state's share
  const Real* bias;         // [G*H] both biases; the input's alone in a last gate that is split
  const Real* bias_hidden;  // [H] the hidden state's bias of the last gate, if it is split
  const Real* c_prev;       // [H], may be c
  Real* c;                  // [H]
  Real* hidden_n;           // [H] out: hidden state's share of the last gate, with its bias
  const Real* h_prev;       // [H], may be h
  Real* h;                  // [H]
  Real* y;                  // [H]
  Clip<Real> clip;          // for a clipped LSTM
};

// Computes unit j from both shares, with their biases.
template <class Cell, class Real>
FASTRNN_HOST_DEVICE void ForwardUnit(const ForwardRow<Real>& r, const CellOptions<Real>& options,
                                     const Shares<Cell::kGates, Real>& shares, int64_t H,
                                     int64_t j) {
  constexpr int G = Cell::kGates;
  UnitState<Real> state = {0, 0};
  if (Cell::kSplitShares) state.h = r.h_prev[j];
  if (Cell::kHasC) state.c = r.c_prev[j];
  Activated<G, Real> activated;
  Cell::Forward(options, shares, &state, &activated);
  if (Cell::kKeepsGates) {
#pragma GCC unroll 4
    for (int k = 0; k < G; ++k) r.gates[k * H + j] = activated.gates[k];
  }
  if (Cell::kSplitShares) r.hidden_n[j] = activated.hidden_n;
  if (Cell::kHasC) r.c[j] = state.c;
  r.h[j] = state.h;
  r.y[j] = state.h;
}

template <class Real>
struct BackwardRow {
  const Real* gates;     // [G*H] activated
  const Real* hidden_n;  // [H]
  const Real* h_prev;    // [H]
  const Real* c_prev;    // [H]
  const Real* c;         // [H]
  const Real* y;         // [H]
  const Real* dy;        // [H]
  // [H] gradient of h: in: from the next step; out: the share of the previous state's gradient that
  // does not pass the gates.
  Real* dh;
  Real* dc;        // [H] in: from the next step, out: for the previous one
  Real* dgates_x;  // [G*H] gradients of the input's share
  Real* dgates_h;  // [G*H] gradients of the hidden state's share, if the cell splits them
};

template <class Real>
using ForwardUnits = void (*)(const ForwardRow<Real>& row, Units units);
template <class Real>
using BackwardUnits = void (*)(const BackwardRow<Real>& row, Units units);

template <class Real>
ForwardUnits<Real> ForwardOf(const LayerDesc& desc);
template <class Real>
BackwardUnits<Real> BackwardOf(Mode mode);

// sums[j] = sum over rows of matrix[row * stride + j] for j in [begin, end), added to sums[j] if
// accumulate is set. The order is fixed: the same inputs give the same bits.
void SumRows(const float* matrix, int64_t rows, int64_t stride, int64_t begin, int64_t end,
             bool accumulate, float* sums);
void SumRows(const double* matrix, int64_t rows, int64_t stride, int64_t begin, int64_t end,
             bool accumulate, double* sums);

}  // namespace cpu
}  // namespace fastrnn
