#include "noise.h"

#include <algorithm>

#include "units.h"
#include "vectors/clones.h"
#include "vectors/number.h"
#include "vectors/philox.h"

namespace fastrnn {
namespace cpu {
namespace {

// ---- loops --------------------------------------------------------------------------------------

// `values` and `words` give each unit's number.
template <class Real>
FASTRNN_HOST_DEVICE void Choose(const typename Masks<Real>::Values& values, const uint32_t* words,
                                int64_t n, Real* to) {
  const typename Masks<Real>::Values of = values;
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) to[j] = of.Of(words[j]);
}

template <class Real>
FASTRNN_HOST_DEVICE void Mix(const typename Masks<Real>::Values& values, const uint32_t* words,
                             const Real* before, const Real* after, int64_t n, Real* to,
                             Real* copy) {
  const typename Masks<Real>::Values of = values;
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) to[j] = copy[j] = Mixed(of.Of(words[j]), before[j], after[j]);
}

template <class Real>
FASTRNN_HOST_DEVICE void Split(const typename Masks<Real>::Values& values, const uint32_t* words,
                               const Real* total, int64_t n, Real* to_before, Real* to_after) {
  const typename Masks<Real>::Values of = values;
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) {
    const Real kept = of.Of(words[j]), gradient = total[j];
    to_before[j] = kept * gradient;
    to_after[j] = (1 - kept) * gradient;
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
#define FASTRNN_LOOPS(Real)                                                                       \
  FASTRNN_CLONES void NoiseChoose(const Masks<Real>::Values& values, const uint32_t* words,       \
                                  int64_t n, Real* to) {                                          \
    Choose(values, words, n, to);                                                                 \
  }                                                                                               \
  FASTRNN_CLONES void NoiseMix(const Masks<Real>::Values& values, const uint32_t* words,          \
                               const Real* before, const Real* after, int64_t n, Real* to,        \
                               Real* copy) {                                                      \
    Mix(values, words, before, after, n, to, copy);                                               \
  }                                                                                               \
  FASTRNN_CLONES void NoiseSplit(const Masks<Real>::Values& values, const uint32_t* words,        \
                                 const Real* total, int64_t n, Real* to_before, Real* to_after) { \
    Split(values, words, total, n, to_before, to_after);                                          \
  }                                                                                               \
  FASTRNN_CLONES void NoiseMultiply(const Real* mask, const Real* from, int64_t n, Real* to) {    \
    Multiply(mask, from, n, to);                                                                  \
  }                                                                                               \
  FASTRNN_CLONES void NoiseAddProduct(const Real* mask, const Real* from, int64_t n, Real* to) {  \
    AddProduct(mask, from, n, to);                                                                \
  }                                                                                               \
  FASTRNN_CLONES void NoiseAdd(const Real* from, int64_t n, Real* to) { Add(from, n, to); }

FASTRNN_LOOPS(float)
FASTRNN_LOOPS(double)

// ---- masks --------------------------------------------------------------------------------------

static_assert(kPieceUnits % kUnitsOfGroup == 0, "pieces begin at groups");

// Units of several rows: the whole of each, or those of one row.
struct Piece {
  int64_t row, rows;
  Units units;

  int64_t count() const { return rows * (units.end - units.begin); }
  // Of the first unit in an array with rows `stride` apart.
  int64_t At(int64_t stride) const { return row * stride + units.begin; }
};

// Calls body(Piece) over all rows and units. Short rows are joined, which saves calls, where none
// has ended and `dense` says that the arrays have no gaps between them.
template <class Step, class Body>
void ForPieces(const Step& step, int64_t units, bool dense, Body body) {
  const bool joins = dense && step.lengths == nullptr && units % kUnitsOfGroup == 0;
  const int64_t rows = joins ? std::max<int64_t>(1, kPieceUnits / units) : 1, of = step.rows;
  if (rows == 1) return ForUnits(of, units, [&](int64_t n, Units own) { body(Piece{n, 1, own}); });
  ForUnits((of + rows - 1) / rows, rows * units, [&](int64_t k, Units) {
    body(Piece{k * rows, std::min(rows, of - k * rows), {units, 0, units}});
  });
}

// Words of masks whose numbers are all the same.
constexpr uint32_t kNoWords[kPieceUnits] = {};

// What gives the numbers of a piece's units.
template <class Real>
class Drawn {
 public:
  Drawn(const Masks<Real>& masks, const RoundKeys& keys, Mask mask, int64_t first_row, int64_t time,
        Piece piece)
      : values_(masks.Of(mask)) {
    if (!keys.draws || values_.limit == 0) {
      values_.below = values_.above = values_.mean;
      words_ = kNoWords;
      return;
    }
    const int64_t units = piece.units.end - piece.units.begin;
    for (int64_t i = 0; i < piece.rows; ++i) {
      Counter counter = masks.CounterOf(mask, first_row + piece.row + i, time);
      counter.words[0] = static_cast<uint32_t>(piece.units.begin / 4);
      DrawWords(keys, counter, (units + kUnitsOfGroup - 1) / kUnitsOfGroup, own_ + i * units);
    }
    words_ = own_;
  }
  const typename Masks<Real>::Values& values() const { return values_; }
  const uint32_t* words() const { return words_; }

 private:
  typename Masks<Real>::Values values_;
  const uint32_t* words_;
  uint32_t own_[kPieceUnits];
};

// The numbers of a piece in the type of the arithmetic: the array itself, or a copy of a 16-bit
// one.
template <class T>
struct Read {
  using Sum = Accumulator<T>;

  Read(const T* from, int64_t n) {
    if constexpr (kHoldsSums<T>) {
      values = from;
    } else {
      Convert(from, n, own);
      values = own;
    }
  }
  Read(const Read&) = delete;

  const Sum* values;
  Sum own[kHoldsSums<T> ? 1 : kPieceUnits];
};

// Where the numbers of a piece are computed; Finish() writes those of a 16-bit type.
template <class T>
struct Written {
  using Sum = Accumulator<T>;

  Written(T* array, int64_t n) : to(array), count(n) {
    if constexpr (kHoldsSums<T>) {
      values = to;
    } else {
      values = own;
    }
  }
  Written(const Written&) = delete;
  void Finish() const { Convert(values, count, to); }

  T* to;
  int64_t count;
  Sum* values;
  Sum own[kHoldsSums<T> ? 1 : kPieceUnits];
};

// Draws the mask of what steps read as h, before the first step.
template <class Step, class Noise>
void DrawReadMask(const Step& step, const Noise& noise, const RoundKeys& keys) {
  if (!noise.first || noise.read_mask == nullptr) return;
  using Real = typename Noise::Sum;
  ForPieces(step, step.outputs, true, [&](Piece piece) {
    const Drawn<Real> mask(noise.masks, keys, Mask::kRead, noise.first_row, 0, piece);
    NoiseChoose(mask.values(), mask.words(), piece.count(),
                noise.read_mask + piece.At(step.outputs));
  });
}

}  // namespace

// ---- forward ------------------------------------------------------------------------------------

template <class T>
void NoiseWork::BeginNoise(const ForwardStep<T>& step, const ForwardNoise<T>& noise) const {
  if (noise.read == nullptr) return;
  DrawReadMask(step, noise, keys_);
  const int64_t P = step.outputs;
  ForPieces(step, P, true, [&](Piece piece) {
    const int64_t at = piece.At(P), count = piece.count();
    if (!IsActive(step, piece.row)) {
      std::fill_n(noise.read + at, count, T{});
    } else if (noise.read_mask != nullptr) {
      const Written<T> read(noise.read + at, count);
      NoiseMultiply(noise.read_mask + at, Read<T>(step.h_prev + at, count).values, count,
                    read.values);
      read.Finish();
    } else {
      std::copy_n(step.h_prev + at, count, noise.read + at);
    }
  });
}

template <class T>
void NoiseWork::EndNoise(const ForwardStep<T>& step, const ForwardNoise<T>& noise) const {
  using Sum = Accumulator<T>;
  const int64_t P = step.outputs, H = step.hidden;
  ForPieces(step, P, step.y_stride == P, [&](Piece piece) {
    const int64_t at = piece.At(P), count = piece.count();
    T* const y = step.y + piece.At(step.y_stride);
    if (!IsActive(step, piece.row)) {
      std::fill_n(y, count, T{});
      if (step.h != step.h_prev) std::copy_n(step.h_prev + at, count, step.h + at);
      return;
    }
    const Drawn<Sum> kept(noise.masks, keys_, Mask::kKeptH, noise.first_row, step.time, piece);
    const Written<T> h(step.h + at, count), output(y, count);
    NoiseMix(kept.values(), kept.words(), Read<T>(step.h_prev + at, count).values,
             Read<T>(noise.h_new + at, count).values, count, h.values, output.values);
    h.Finish();
    output.Finish();
  });
  if (noise.c_new == nullptr) return;
  const auto mix = [&](Piece piece, const Sum* before) {
    const int64_t at = piece.At(H), count = piece.count();
    Sum* const c = step.c + at;
    if (!IsActive(step, piece.row)) {
      if (c != before) std::copy_n(before, count, c);
    } else {
      const Drawn<Sum> kept(noise.masks, keys_, Mask::kKeptC, noise.first_row, step.time, piece);
      NoiseMix(kept.values(), kept.words(), before, noise.c_new + at, count, c, c);
    }
    if (step.c_n != nullptr) Convert(c, count, step.c_n + at);
  };
  ForPieces(step, H, true, [&](Piece piece) {
    const int64_t at = piece.At(H);
    if (step.c_0 == nullptr) return mix(piece, step.c_prev + at);
    mix(piece, Read<T>(step.c_0 + at, piece.count()).values);
  });
}

// ---- backward -----------------------------------------------------------------------------------

template <class T>
void NoiseWork::BeginNoise(const BackwardStep<T>& step, const BackwardNoise<T>& noise) const {
  using Sum = Accumulator<T>;
  DrawReadMask(step, noise, keys_);
  const int64_t P = step.outputs, H = step.hidden;
  ForPieces(step, P, step.y_stride == P, [&](Piece piece) {
    const int64_t at = piece.At(P), count = piece.count();
    if (!IsActive(step, piece.row)) {
      std::fill_n(noise.dh_new + at, count, Sum(0));
      return;
    }
    const Drawn<Sum> kept(noise.masks, keys_, Mask::kKeptH, noise.first_row, step.time, piece);
    NoiseAdd(Read<T>(step.dy + piece.At(step.y_stride), count).values, count, step.dh + at);
    NoiseSplit(kept.values(), kept.words(), step.dh + at, count, step.dh + at, noise.dh_new + at);
  });
  if (noise.dc_kept == nullptr) return;
  ForPieces(step, H, true, [&](Piece piece) {
    if (!IsActive(step, piece.row)) return;
    const int64_t at = piece.At(H);
    const Drawn<Sum> kept(noise.masks, keys_, Mask::kKeptC, noise.first_row, step.time, piece);
    NoiseSplit(kept.values(), kept.words(), step.dc + at, piece.count(), noise.dc_kept + at,
               step.dc + at);
  });
}

template <class T>
void NoiseWork::EndNoise(const BackwardStep<T>& step, const BackwardNoise<T>& noise) const {
  const int64_t P = step.outputs, H = step.hidden;
  ForPieces(step, P, true, [&](Piece piece) {
    if (!IsActive(step, piece.row)) return;
    const int64_t at = piece.At(P), count = piece.count();
    if (noise.read_mask == nullptr) return NoiseAdd(noise.dh_new + at, count, step.dh + at);
    NoiseAddProduct(noise.read_mask + at, noise.dh_new + at, count, step.dh + at);
  });
  if (noise.dc_kept == nullptr) return;
  ForPieces(step, H, true, [&](Piece piece) {
    const int64_t at = piece.At(H), count = piece.count();
    if (IsActive(step, piece.row)) NoiseAdd(noise.dc_kept + at, count, step.dc + at);
    if (step.dc_0 != nullptr) Convert(step.dc + at, count, step.dc_0 + at);
  });
}

#define FASTRNN_INSTANTIATE(T)                                                                \
  template void NoiseWork::BeginNoise(const ForwardStep<T>&, const ForwardNoise<T>&) const;   \
  template void NoiseWork::EndNoise(const ForwardStep<T>&, const ForwardNoise<T>&) const;     \
  template void NoiseWork::BeginNoise(const BackwardStep<T>&, const BackwardNoise<T>&) const; \
  template void NoiseWork::EndNoise(const BackwardStep<T>&, const BackwardNoise<T>&) const;
FASTRNN_INSTANTIATE(float)
FASTRNN_INSTANTIATE(double)
FASTRNN_INSTANTIATE(Half)
FASTRNN_INSTANTIATE(Bfloat16)

}  // namespace cpu
}  // namespace fastrnn
