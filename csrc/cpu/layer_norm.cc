#include "layer_norm.h"

#include <algorithm>
#include <cmath>

#include "../cells/lstm.h"
#include "../layout.h"
#include "clones.h"

namespace fastrnn {
namespace cpu {
namespace {

template <class Real>
struct Moments {
  Real mean, rstd;
};

// The sum of value(j) for j below n. Each half has a sum of its own: one alone would have every
// addition wait for the one before.
template <class Real, class Value>
FASTRNN_HOST_DEVICE Real SumOf(int64_t n, Value value) {
  const int64_t half = n / 2;
  Real a = 0, b = 0;
#pragma omp simd reduction(+ : a, b)
  for (int64_t j = 0; j < half; ++j) {
    a += value(j);
    b += value(j + half);
  }
  return n % 2 == 0 ? a + b : a + b + value(n - 1);
}

// The variance is a second pass over the row, which is in the cache: a difference of large numbers
// would lose its digits.
template <class Real>
FASTRNN_HOST_DEVICE Moments<Real> MomentsOf(int64_t n, const Real* values) {
  const Real count = static_cast<Real>(n), epsilon = kNormEpsilon;
  const Real mean = SumOf<Real>(n, [=](int64_t j) { return values[j]; }) / count;
  const Real squares =
      SumOf<Real>(n, [=](int64_t j) { return (values[j] - mean) * (values[j] - mean); });
  // Not the quotient of 1, which hides a variance that overflows: this one is NaN then.
  const Real variance = squares / count + epsilon;
  return {mean, std::sqrt(variance) / variance};
}

template <class Real>
FASTRNN_HOST_DEVICE void NormalizeRow(const NormRow<Real>& row) {
  const NormRow<Real> r = row;
  const Moments<Real> moments = MomentsOf(r.n, r.values);
  if (r.normalized == nullptr) {
#pragma omp simd
    for (int64_t j = 0; j < r.n; ++j) {
      r.values[j] = r.gamma[j] * ((r.values[j] - moments.mean) * moments.rstd);
    }
    return;
  }
  *r.rstd = moments.rstd;
#pragma omp simd
  for (int64_t j = 0; j < r.n; ++j) {
    const Real normalized = (r.values[j] - moments.mean) * moments.rstd;
    r.normalized[j] = normalized;
    r.values[j] = r.gamma[j] * normalized;
  }
}

template <class Real>
FASTRNN_HOST_DEVICE void GradientOfRow(const NormGradientRow<Real>& row) {
  const NormGradientRow<Real> r = row;
  const Real count = static_cast<Real>(r.n);
  Real ones = 0, along = 0;
#pragma omp simd reduction(+ : ones, along)
  for (int64_t j = 0; j < r.n; ++j) {
    const Real d = r.d[j] * r.gamma[j];
    ones += d;
    along += d * r.normalized[j];
  }
  const Real mean = ones / count, slope = along / count;
#pragma omp simd
  for (int64_t j = 0; j < r.n; ++j) {
    r.to[j] = r.rstd * (r.d[j] * r.gamma[j] - mean - r.normalized[j] * slope);
  }
}

template <class Real>
FASTRNN_HOST_DEVICE void OutputOfRow(const OutputRow<Real>& row) {
  const OutputRow<Real> r = row;
  const Moments<Real> moments = MomentsOf(r.hidden, r.c);
  if (r.moments != nullptr) {
    r.moments[0] = moments.mean;
    r.moments[1] = moments.rstd;
  }
#pragma omp simd
  for (int64_t j = 0; j < r.hidden; ++j) {
    const Real c = (r.c[j] - moments.mean) * moments.rstd;
    r.h[j] = r.y[j] = NormalizedLstmCell::Output(r.o[j], r.gamma[j] * c + r.beta[j]);
  }
}

template <class Real>
FASTRNN_HOST_DEVICE void BackwardOfRow(const NormalizedLstmRow<Real>& row) {
  const NormalizedLstmRow<Real> r = row;
  const int64_t H = r.hidden;
  const Real count = static_cast<Real>(H), mean_c = r.moments[0], rstd = r.moments[1];
  Real ones = 0, along = 0;
#pragma omp simd reduction(+ : ones, along)
  for (int64_t j = 0; j < H; ++j) {
    const Real c = (r.c[j] - mean_c) * rstd;
    const NormalizedLstmCell::OutputGradients<Real> d = NormalizedLstmCell::OfOutput(
        r.gates[3 * H + j], r.gamma[j] * c + r.beta[j], r.dy[j] + r.dh[j]);
    r.dgates[3 * H + j] = d.o;
    r.dc_beta[j] = d.c;
    r.dc_gamma[j] = d.c * c;
    ones += d.c * r.gamma[j];
    along += d.c * c * r.gamma[j];
  }
  const Real mean = ones / count, slope = along / count;
#pragma omp simd
  for (int64_t j = 0; j < H; ++j) {
    const Real c = (r.c[j] - mean_c) * rstd;
    const Real dc = r.dc[j] + rstd * (r.dc_beta[j] * r.gamma[j] - mean - c * slope);
    Seen<4, Real> seen;
#pragma GCC unroll 3
    for (int k = 0; k < 3; ++k) seen.activated.gates[k] = r.gates[k * H + j];
    seen.c_prev = r.c_prev[j];
    GateGradients<4, Real> d;
    r.dc[j] = NormalizedLstmCell::OfCellState(seen, dc, &d);
#pragma GCC unroll 3
    for (int k = 0; k < 3; ++k) r.dgates[k * H + j] = d.x[k];
    r.dh[j] = 0;
  }
}

template <class Real>
FASTRNN_HOST_DEVICE void AddRows(const NormSums<Real>& sums, int64_t begin, int64_t end) {
  const NormSums<Real> s = sums;
  if (!s.accumulate) {
    std::fill(s.beta + begin, s.beta + end, Real(0));
    std::fill(s.gamma + begin, s.gamma + end, Real(0));
  }
  // Four rows at once: the sums are read and written less often.
  int64_t row = 0;
  for (; row + 4 <= s.rows; row += 4) {
    const Real* const d = s.d + row * s.stride;
    const Real* const normalized = s.normalized + row * s.stride;
    const int64_t step = s.stride;
#pragma omp simd
    for (int64_t j = begin; j < end; ++j) {
      Real beta = s.beta[j], gamma = s.gamma[j];
#pragma GCC unroll 4
      for (int64_t k = 0; k < 4; ++k) {
        beta += d[k * step + j];
        gamma += d[k * step + j] * normalized[k * step + j];
      }
      s.beta[j] = beta;
      s.gamma[j] = gamma;
    }
  }
  for (; row < s.rows; ++row) {
    const Real* const d = s.d + row * s.stride;
    const Real* const normalized = s.normalized + row * s.stride;
#pragma omp simd
    for (int64_t j = begin; j < end; ++j) {
      s.beta[j] += d[j];
      s.gamma[j] += d[j] * normalized[j];
    }
  }
}

}  // namespace

// As the cells' (pointwise.cc), these are vectors in float32.
#define FASTRNN_FUNCTIONS(clones, Real)                                                          \
  clones void Normalize(const NormRow<Real>& row) { NormalizeRow(row); }                         \
  clones void NormalizeGradient(const NormGradientRow<Real>& row) { GradientOfRow(row); }        \
  clones void NormalizedOutput(const OutputRow<Real>& row) { OutputOfRow(row); }                 \
  clones void NormalizedLstmBackward(const NormalizedLstmRow<Real>& row) { BackwardOfRow(row); } \
  clones void SumNorm(const NormSums<Real>& sums, int64_t begin, int64_t end) {                  \
    AddRows(sums, begin, end);                                                                   \
  }

FASTRNN_FUNCTIONS(FASTRNN_CLONES, float)
FASTRNN_FUNCTIONS(, double)

}  // namespace cpu
}  // namespace fastrnn
