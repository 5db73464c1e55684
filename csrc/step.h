// One step of one direction, for N rows of H units, P outputs and G gates: the arguments of a
// backend's kernels. Gate k of unit j is at [k * H + j] of a row. Kernels read only what the cell
// has (cells/cell.h). P is H unless the layer is projected. Then its cells' output is r, and
// OfCells gives the step as its cells see it: as one of a layer without a projection.
#pragma once

#include <cstdint>

#include "cells/cell.h"
#include "layout.h"

namespace fastrnn {

template <class T>
struct ForwardStep {
  using Sum = Accumulator<T>;

  int rows, hidden, outputs;  // N, H, P
  CellOptions<Sum> options;
  int64_t time;
  const int32_t* lengths;  // [N], or null
  const T* i2h_bias;       // [G*H]
  const T* h2h_bias;       // [G*H]
  const Sum* input_sum;    // [N, G*H] x * W_i2h'
  const Sum* hidden_sum;   // [N, G*H] h_prev * W_h2h'
  const T* h_prev;         // [N, P], may be h
  const T* c_0;            // [N, H] replaces c_prev in the first step, else null
  const Sum* c_prev;       // [N, H], may be c
  T* gates;                // [N, G*H] activated, for backward; null, or may be input_sum
  T* hidden_n;             // [N, H] hidden_sum of the last gate with its bias; null as gates
  T* h;                    // [N, P]
  Sum* c;                  // [N, H]
  T* c_n;                  // [N, H] copy of c in the last step, else null
  T* y;                    // [N, P], rows y_stride apart
  int64_t y_stride;
  T* r;  // [N, H] zeros past a row's length; null if the layer is not projected
  // For backward, if the layer is normalised; else null.
  T* normalized_input;   // [N, G*H] input_sum with mean 0 and variance 1
  T* normalized_hidden;  // [N, G*H] hidden_sum likewise
  Sum* input_rstd;       // [N, parts] the reciprocal standard deviations of input_sum
  Sum* hidden_rstd;      // [N, parts] those of hidden_sum
  Sum* c_moments;        // [N, 2] mean and reciprocal standard deviation of c (LSTM)
};

// An LSTM's cells do not read h.
template <class T>
ForwardStep<T> OfCells(ForwardStep<T> step) {
  if (step.r == nullptr) return step;
  step.h_prev = step.h = step.y = step.r;  // y is written last
  step.y_stride = step.hidden;
  return step;
}

template <class T>
struct BackwardStep {
  using Sum = Accumulator<T>;

  int rows, hidden, outputs;  // N, H, P
  bool relu;                  // of CellOptions
  int64_t time, steps;
  bool reverse;
  const int32_t* lengths;  // [N], or null
  const T* gates;          // [N, G*H] activated
  const T* hidden_n;       // [N, H]
  const T* h_0;            // [N, P]
  const T* h_prev;         // [N, P], rows y_stride apart; not read in a row's first step
  const T* c_0;            // [N, H] replaces c_prev in the first step, else null
  const Sum* c_prev;       // [N, H]
  const Sum* c;            // [N, H]
  const T* y;              // [N, P], rows y_stride apart
  const T* dy;             // [N, P], rows y_stride apart
  int64_t y_stride;
  // [N, P] and [N, H] replace dh and dc in the last step, which is computed first; else null
  const T* dh_n;
  const T* dc_n;
  Sum* dh;          // [N, P] in: from the step after; out, if wanted: the share of the gradient
  bool dh_wanted;   // of h_prev that does not pass the gates
  Sum* dc;          // [N, H] in: from the step after, out: for the step before
  T* dc_0;          // [N, H] copy of dc in the first step, else null
  T* dgates_x;      // [N, G*H] gradients of the input's share
  T* dgates_h;      // [N, G*H] gradients of the hidden state's share, if the cell splits them
  T* dgates_first;  // [N, G*H] copy of dgates_h in a row's first step
  // Null if the layer is not projected.
  const T* r;      // [N, H]
  T* dh_total;     // [N, P] the gradient of h, zeros past a row's length
  Sum* dr;         // [N, H]
  const T* zeros;  // [N, H]
  // Null if the layer is not normalised. In one that is, dgates_h are the gradients of the product
  // h_prev * W_h2h' itself.
  const T* normalized_hidden;
  const Sum* hidden_rstd;
  const Sum* c_moments;
  T* dshare_h;  // [N, G*H] those of its normalised share; dgates_x, unless the cell splits shares
  T* dc_gamma;  // [N, H] each row's gradients of c_gamma and c_beta (LSTM)
  T* dc_beta;
};

template <class T>
BackwardStep<T> OfCells(BackwardStep<T> step) {
  if (step.r == nullptr) return step;
  step.h_0 = step.h_prev = step.y = step.r;
  step.dy = step.zeros;
  step.y_stride = step.hidden;
  step.dh_n = nullptr;
  step.dh = step.dr;
  step.dh_wanted = false;
  return step;
}

}  // namespace fastrnn
