#include "noise.h"

#include <algorithm>

#include "clones.h"
#include "philox.h"
#include "units.h"

namespace fastrnn {
namespace cpu {
namespace {

// ---- loops --------------------------------------------------------------------------------------

template <class Real>
FASTRNN_HOST_DEVICE void Choose(const typename Masks<Real>::Values& values, const uint32_t* words,
                                int64_t n, Real* to) {
  const typename Masks<Real>::Values of = values;
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) to[j] = of.Of(words[j]);
}

template <class Real>
FASTRNN_HOST_DEVICE void Mix(const Real* kept, const Real* before, const Real* after, int64_t n,
                             Real* to) {
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) to[j] = Mixed(kept[j], before[j], after[j]);
}

template <class Real>
FASTRNN_HOST_DEVICE void Split(const Real* kept, const Real* total, int64_t n, Real* to_before,
                               Real* to_after) {
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) {
    const Real gradient = total[j];
    to_before[j] = kept[j] * gradient;
    to_after[j] = (1 - kept[j]) * gradient;
  }
}

template <class Real>
FASTRNN_HOST_DEVICE void Multiply(const Real* mask, const Real* from, int64_t n, Real* to) {
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) to[j] = mask[j] * from[j];
}

template <class Real>
FASTRNN_HOST_DEVICE void AddProduct(const Real* mask, const Real* from, int64_t n, Real* to) {
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) to[j] += mask[j] * from[j];
}

template <class Real>
FASTRNN_HOST_DEVICE void Add(const Real* from, int64_t n, Real* to) {
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) to[j] += from[j];
}

// target_clones works on functions, not on templates.
#define FASTRNN_LOOPS(Real)                                                                        \
  FASTRNN_CLONES void NoiseChoose(const Masks<Real>::Values& values, const uint32_t* words,        \
                                  int64_t n, Real* to) {                                           \
    Choose<Real>(values, words, n, to);                                                            \
  }                                                                                                \
  FASTRNN_CLONES void NoiseMix(const Real* kept, const Real* before, const Real* after, int64_t n, \
                               Real* to) {                                                         \
    Mix(kept, before, after, n, to);                                                               \
  }                                                                                                \
  FASTRNN_CLONES void NoiseSplit(const Real* kept, const Real* total, int64_t n, Real* to_before,  \
                                 Real* to_after) {                                                 \
    Split(kept, total, n, to_before, to_after);                                                    \
  }                                                                                                \
  FASTRNN_CLONES void NoiseMultiply(const Real* mask, const Real* from, int64_t n, Real* to) {     \
    Multiply(mask, from, n, to);                                                                   \
  }                                                                                                \
  FASTRNN_CLONES void NoiseAddProduct(const Real* mask, const Real* from, int64_t n, Real* to) {   \
    AddProduct(mask, from, n, to);                                                                 \
  }                                                                                                \
  FASTRNN_CLONES void NoiseAdd(const Real* from, int64_t n, Real* to) { Add(from, n, to); }

FASTRNN_LOOPS(float)
FASTRNN_LOOPS(double)

// ---- masks --------------------------------------------------------------------------------------

static_assert(kPieceUnits % kUnitsOfGroup == 0, "pieces begin at groups");

// The numbers of some units of a row.
template <class Real>
class Drawn {
 public:
  Drawn(const Masks<Real>& masks, const Key& key, Mask mask, int64_t row, int64_t time,
        Units units) {
    const typename Masks<Real>::Values& of = masks.Of(mask);
    const int64_t count = units.end - units.begin;
    if (!key.draws || of.limit == 0) {
      std::fill_n(values_, count, of.mean);
      return;
    }
    Counter counter = masks.CounterOf(mask, row, time);
    counter.words[0] = static_cast<uint32_t>(units.begin / 4);
    uint32_t words[kPieceUnits];
    DrawWords(key, counter, (count + kUnitsOfGroup - 1) / kUnitsOfGroup, words);
    NoiseChoose(of, words, count, values_);
  }
  const Real* data() const { return values_; }

 private:
  Real values_[kPieceUnits];
};

template <class Step>
bool IsActive(const Step& step, int64_t n) {
  return step.lengths == nullptr || step.time < step.lengths[n];
}

}  // namespace

// ---- forward ------------------------------------------------------------------------------------

template <class T>
void NoiseWork::BeginNoise(const ForwardStep<T>& step, const ForwardNoise<T>& noise) const {
  if (noise.read == nullptr) return;
  const int64_t P = step.outputs;
  ForUnits(step.rows, P, [&](int64_t n, Units units) {
    const int64_t at = n * P + units.begin, count = units.end - units.begin;
    if (!IsActive(step, n)) {
      std::fill_n(noise.read + at, count, T(0));
      return;
    }
    const Drawn<T> mask(noise.masks, key_, Mask::kRead, noise.first_row + n, step.time, units);
    NoiseMultiply(mask.data(), step.h_prev + at, count, noise.read + at);
  });
}

template <class T>
void NoiseWork::EndNoise(const ForwardStep<T>& step, const ForwardNoise<T>& noise) const {
  const int64_t P = step.outputs, H = step.hidden;
  ForUnits(step.rows, P, [&](int64_t n, Units units) {
    const int64_t at = n * P + units.begin, count = units.end - units.begin;
    T* const y = step.y + n * step.y_stride + units.begin;
    if (!IsActive(step, n)) {
      std::fill_n(y, count, T(0));
      return Copy(step.h_prev + n * P, units, step.h + n * P);
    }
    const Drawn<T> kept(noise.masks, key_, Mask::kKeptH, noise.first_row + n, step.time, units);
    NoiseMix(kept.data(), step.h_prev + at, noise.h_new + at, count, y);
    Copy(y - units.begin, units, step.h + n * P);
  });
  if (noise.c_new == nullptr) return;
  const T* const c_prev = step.c_0 != nullptr ? step.c_0 : step.c_prev;
  ForUnits(step.rows, H, [&](int64_t n, Units units) {
    const int64_t at = n * H + units.begin, count = units.end - units.begin;
    if (!IsActive(step, n)) {
      Copy(c_prev + n * H, units, step.c + n * H);
    } else {
      const Drawn<T> kept(noise.masks, key_, Mask::kKeptC, noise.first_row + n, step.time, units);
      NoiseMix(kept.data(), c_prev + at, noise.c_new + at, count, step.c + at);
    }
    if (step.c_n != nullptr) Copy(step.c + n * H, units, step.c_n + n * H);
  });
}

// ---- backward -----------------------------------------------------------------------------------

template <class T>
void NoiseWork::BeginNoise(const BackwardStep<T>& step, const BackwardNoise<T>& noise) const {
  const int64_t P = step.outputs, H = step.hidden;
  ForUnits(step.rows, P, [&](int64_t n, Units units) {
    const int64_t at = n * P + units.begin, count = units.end - units.begin;
    if (!IsActive(step, n)) {
      std::fill_n(noise.dh_new + at, count, T(0));
      return;
    }
    const Drawn<T> kept(noise.masks, key_, Mask::kKeptH, noise.first_row + n, step.time, units);
    NoiseAdd(step.dy + n * step.y_stride + units.begin, count, step.dh + at);
    NoiseSplit(kept.data(), step.dh + at, count, step.dh + at, noise.dh_new + at);
  });
  if (noise.dc_kept == nullptr) return;
  ForUnits(step.rows, H, [&](int64_t n, Units units) {
    if (!IsActive(step, n)) return;
    const int64_t at = n * H + units.begin, count = units.end - units.begin;
    const Drawn<T> kept(noise.masks, key_, Mask::kKeptC, noise.first_row + n, step.time, units);
    NoiseSplit(kept.data(), step.dc + at, count, noise.dc_kept + at, step.dc + at);
  });
}

template <class T>
void NoiseWork::EndNoise(const BackwardStep<T>& step, const BackwardNoise<T>& noise) const {
  const int64_t P = step.outputs, H = step.hidden;
  ForUnits(step.rows, P, [&](int64_t n, Units units) {
    if (!IsActive(step, n)) return;
    const int64_t at = n * P + units.begin, count = units.end - units.begin;
    const Drawn<T> mask(noise.masks, key_, Mask::kRead, noise.first_row + n, step.time, units);
    NoiseAddProduct(mask.data(), noise.dh_new + at, count, step.dh + at);
  });
  if (noise.dc_kept == nullptr) return;
  ForUnits(step.rows, H, [&](int64_t n, Units units) {
    if (!IsActive(step, n)) return;
    const int64_t at = n * H + units.begin;
    NoiseAdd(noise.dc_kept + at, units.end - units.begin, step.dc + at);
  });
}

#define FASTRNN_INSTANTIATE(T)                                                                \
  template void NoiseWork::BeginNoise(const ForwardStep<T>&, const ForwardNoise<T>&) const;   \
  template void NoiseWork::EndNoise(const ForwardStep<T>&, const ForwardNoise<T>&) const;     \
  template void NoiseWork::BeginNoise(const BackwardStep<T>&, const BackwardNoise<T>&) const; \
  template void NoiseWork::EndNoise(const BackwardStep<T>&, const BackwardNoise<T>&) const;
FASTRNN_INSTANTIATE(float)
FASTRNN_INSTANTIATE(double)

}  // namespace cpu
}  // namespace fastrnn
