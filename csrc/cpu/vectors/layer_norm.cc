#include "layer_norm.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "../../cells/gru.h"
#include "../../cells/lstm.h"
#include "../../layout.h"
#include "clones.h"

namespace fastrnn {
namespace cpu {
namespace {

template <class Real>
struct Kernels {
  void (*moments)(int64_t rows, int64_t n, int64_t stride, const Real* values, Moments<Real>* to);
  void (*lstm_forward)(const NormalizedForwardRow<Real>& row);
  void (*gru_forward)(const NormalizedForwardRow<Real>& row);
  void (*gradient)(const NormGradientRows<Real>& rows);
  void (*output)(const OutputRow<Real>& row);
  void (*lstm_backward)(const NormalizedLstmRow<Real>& row);
};

#define FASTRNN_VECTOR_CODE "cpu/vectors/layer_norm_lanes.h"
#include "instruction_sets.h"

template <class Real>
const Kernels<Real> kernels = FASTRNN_FOR_THIS_PROCESSOR(kKernels<Real>);

// Adds kRows rows from `row` on: with more, the sums are read and written less often.
template <int kRows, int kGammas, class Real>
FASTRNN_HOST_DEVICE void AddRows(const NormSums<Real>& s, int64_t row, int64_t begin, int64_t end) {
  const int64_t stride = s.stride;
  const Real* const d = s.d + row * stride;
  const Real* const first = s.normalized[0] + row * stride;
  const Real* const second = s.normalized[kGammas - 1] + row * stride;
  Real* const beta = s.beta;
  Real* const first_gamma = s.gamma[0];
  Real* const second_gamma = s.gamma[kGammas - 1];
#pragma omp simd
  for (int64_t j = begin; j < end; ++j) {
    Real sum = beta[j], of_first = first_gamma[j], of_second = second_gamma[j];
#pragma GCC unroll 4
    for (int64_t k = 0; k < kRows; ++k) {
      const int64_t at = k * stride + j;
      sum += d[at];
      of_first += d[at] * first[at];
      if (kGammas == 2) of_second += d[at] * second[at];
    }
    beta[j] = sum;
    first_gamma[j] = of_first;
    if (kGammas == 2) second_gamma[j] = of_second;
  }
}

template <int kGammas, class Real>
FASTRNN_HOST_DEVICE void AddAllRows(const NormSums<Real>& sums, int64_t begin, int64_t end) {
  if (!sums.accumulate) {
    std::fill(sums.beta + begin, sums.beta + end, Real(0));
    for (int k = 0; k < kGammas; ++k)
      std::fill(sums.gamma[k] + begin, sums.gamma[k] + end, Real(0));
  }
  int64_t row = 0;
  for (; row + 4 <= sums.rows; row += 4) AddRows<4, kGammas>(sums, row, begin, end);
  for (; row < sums.rows; ++row) AddRows<1, kGammas>(sums, row, begin, end);
}

template <class Real>
FASTRNN_HOST_DEVICE void Sum(const NormSums<Real>& sums, int64_t begin, int64_t end) {
  if (sums.normalized[1] == nullptr) return AddAllRows<1>(sums, begin, end);
  AddAllRows<2>(sums, begin, end);
}

}  // namespace

#define FASTRNN_FUNCTIONS(clones, Real)                                                        \
  void RowMoments(int64_t rows, int64_t n, int64_t stride, const Real* values,                 \
                  Moments<Real>* to) {                                                         \
    kernels<Real>.moments(rows, n, stride, values, to);                                        \
  }                                                                                            \
  void NormalizedForward(Mode mode, const NormalizedForwardRow<Real>& row) {                   \
    (mode == Mode::kLstm ? kernels<Real>.lstm_forward : kernels<Real>.gru_forward)(row);       \
  }                                                                                            \
  void NormalizeGradient(const NormGradientRows<Real>& rows) { kernels<Real>.gradient(rows); } \
  void NormalizedOutput(const OutputRow<Real>& row) { kernels<Real>.output(row); }             \
  void NormalizedLstmBackward(const NormalizedLstmRow<Real>& row) {                            \
    kernels<Real>.lstm_backward(row);                                                          \
  }                                                                                            \
  clones void SumNorm(const NormSums<Real>& sums, int64_t begin, int64_t end) {                \
    Sum(sums, begin, end);                                                                     \
  }

FASTRNN_FUNCTIONS(FASTRNN_CLONES, float)
FASTRNN_FUNCTIONS(, double)

}  // namespace cpu
}  // namespace fastrnn
