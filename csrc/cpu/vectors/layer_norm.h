// Layer normalisation of a row, forward and backward, vectorised for the processor at hand (sums
// over rows in float32 only). Sums over a row are in an order that depends on its length and the
// processor alone: the same inputs give the same bits, whichever thread has the row.
#pragma once

#include <cstdint>

#include "pointwise.h"

namespace fastrnn {
namespace cpu {

// Rows whose sums are computed before what needs them: while one is added up, the processor begins
// with the next.
constexpr int64_t kNormGroup = 8;

// The mean of a row and its reciprocal standard deviation.
template <class Real>
struct Moments {
  Real mean, rstd;
};
// Of `rows` rows of n values, `stride` apart.
void RowMoments(int64_t rows, int64_t n, int64_t stride, const float* values, Moments<float>* to);
void RowMoments(int64_t rows, int64_t n, int64_t stride, const double* values, Moments<double>* to);

// A row of a step, forward: ForwardRow without clipping, whose gates and h2h are the products
// without their normalisation. An LSTM's h and y are its output gate; NormalizedOutput follows.
template <class Real>
struct NormalizedForwardRow {
  ForwardRow<Real> cells;
  int64_t hidden;
  Moments<Real> of_input[2], of_hidden[2];  // of the products' parts (layout.h)
  const Real* i2h_gamma;                    // [G*H]
  const Real* h2h_gamma;                    // [G*H]
  // Out, unless they are null: the products with mean 0 and variance 1, and the reciprocal standard
  // deviations of their parts (layout.h).
  Real* normalized_input;   // [G*H]
  Real* normalized_hidden;  // [G*H]
  Real* input_rstd;         // [parts]
  Real* hidden_rstd;        // [parts]
};
void NormalizedForward(Mode mode, const NormalizedForwardRow<float>& row);
void NormalizedForward(Mode mode, const NormalizedForwardRow<double>& row);

// Rows, `stride` apart, of gradients of gamma * (values - mean) * rstd, from those of the results.
template <class Real>
struct NormGradientRows {
  int64_t rows, n, stride;
  const Real* d;           // rows of n: the gradients of the results
  const Real* gamma;       // [n]
  const Real* normalized;  // rows of n
  const Real* rstd;        // one of each row
  int64_t rstd_stride;
  Real* to;  // rows of n, may be d
};
void NormalizeGradient(const NormGradientRows<float>& rows);
void NormalizeGradient(const NormGradientRows<double>& rows);

// A row of a layer-normalised LSTM after its cells (NormalizedLstmCell): h and y of H units.
template <class Real>
struct OutputRow {
  int64_t hidden;
  const Real* o;          // [H] the output gate, may be h
  const Real* c;          // [H]
  const Real* gamma;      // [H]
  const Real* beta;       // [H]
  Moments<Real> moments;  // of c
  Real* h;                // [H]
  Real* y;                // [H]
};
void NormalizedOutput(const OutputRow<float>& row);
void NormalizedOutput(const OutputRow<double>& row);

// Such a row's step backward.
template <class Real>
struct NormalizedLstmRow {
  int64_t hidden;
  const Real* gates;      // [4*H] activated
  const Real* c_prev;     // [H]
  const Real* c;          // [H]
  Moments<Real> moments;  // of c
  const Real* gamma;      // [H]
  const Real* beta;       // [H]
  const Real* dy;         // [H]
  Real* dh;               // [H] in: from the next step, out: zeros
  Real* dc;               // [H] in: from the next step, out: for the previous one
  Real* dgates;           // [4*H] the gradients of the gates before their activation
  Real* dc_gamma;         // [H] the row's gradients of gamma and beta
  Real* dc_beta;          // [H]
};
void NormalizedLstmBackward(const NormalizedLstmRow<float>& row);
void NormalizedLstmBackward(const NormalizedLstmRow<double>& row);

// Columns [begin, end) of the sums over rows that give the gradients of a beta, and of a gamma or
// two that have the same gradients of results; in a fixed order.
template <class Real>
struct NormSums {
  const Real* d;  // rows `stride` apart: the gradients of the results
  int64_t rows, stride;
  bool accumulate;  // whether to add to what is there
  Real* beta;       // the sums of d
  // The sums of d * normalized, which are rows like d; the second ones may be null.
  const Real* normalized[2];
  Real* gamma[2];
};
void SumNorm(const NormSums<float>& sums, int64_t begin, int64_t end);
void SumNorm(const NormSums<double>& sums, int64_t begin, int64_t end);

}  // namespace cpu
}  // namespace fastrnn
