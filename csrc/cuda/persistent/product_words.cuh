// What products are made of: the maths, the words of weights in the order of the tensor cores'
// fragments (product.cuh says which), and their multiplication by one warp.
#pragma once

#include <type_traits>

#include "../runtime/device.cuh"
#include "product_shape.h"

namespace fastrnn {
namespace cuda {

// How products are computed; Value is the type of weights and exchanged numbers.
struct HalfMath {
  using Value = Half;
  static constexpr bool kTensorCores = true;
};
struct Bfloat16Math {
  using Value = Bfloat16;
  static constexpr bool kTensorCores = true;
};
struct Tf32Math {
  using Value = float;
  static constexpr bool kTensorCores = true;
};
// IEEE float32.
struct FloatMath {
  using Value = float;
  static constexpr bool kTensorCores = false;
};

// Rounds a number to the type that is multiplied, or to TF32.
template <class Math>
FASTRNN_DEVICE typename Math::Value ForExchange(float value) {
  if constexpr (std::is_same<Math, Tf32Math>::value) {
    return __uint_as_float(ToTf32(value));
  } else {
    return FromFloat<typename Math::Value>(value);
  }
}

// Four words of weights of a row, and of the row 8 below, as they are multiplied: the first two of
// each, row by row, and then the others.
struct WeightWords {
  uint4 first, second;
};

FASTRNN_DEVICE uint32_t Word(Half first, Half second) {
  return static_cast<uint32_t>(__half_as_ushort(second)) << 16 | __half_as_ushort(first);
}
FASTRNN_DEVICE uint32_t Word(Bfloat16 first, Bfloat16 second) {
  return static_cast<uint32_t>(second.bits) << 16 | first.bits;
}

// ---- a tile on the tensor cores, in one warp ----------------------------------------------------

// Whether the architecture that this is compiled for has the math.
template <class Math>
constexpr bool kIsSupported =
    !Math::kTensorCores || FASTRNN_ARCH >= (std::is_same<Math, HalfMath>::value ? 750 : 800);

template <class Math>
FASTRNN_DEVICE void MultiplyWords(float (&sums)[4], const WeightWords& weights, uint4 exchanged);

#if FASTRNN_ARCH >= 800
FASTRNN_DEVICE void Mma(HalfMath, float (&sums)[4], const uint32_t (&a)[4],
                        const uint32_t (&b)[2]) {
  MmaF16M16N8K16(sums, a, b, sums);
}
FASTRNN_DEVICE void Mma(Bfloat16Math, float (&sums)[4], const uint32_t (&a)[4],
                        const uint32_t (&b)[2]) {
  MmaBf16M16N8K16(sums, a, b, sums);
}
FASTRNN_DEVICE void Mma(Tf32Math, float (&sums)[4], const uint32_t (&a)[4],
                        const uint32_t (&b)[2]) {
  MmaTf32M16N8K8(sums, a, b, sums);
}
template <class Math>
FASTRNN_DEVICE void MultiplyWords(float (&sums)[4], const WeightWords& weights, uint4 exchanged) {
  const uint4 a = weights.first, b = weights.second;
  Mma(Math(), sums, {a.x, a.y, a.z, a.w}, {exchanged.x, exchanged.y});
  Mma(Math(), sums, {b.x, b.y, b.z, b.w}, {exchanged.z, exchanged.w});
}
#elif FASTRNN_ARCH >= 750
template <class Math>
FASTRNN_DEVICE void MultiplyWords(float (&sums)[4], const WeightWords& weights, uint4 exchanged) {
  const uint4 a = weights.first, b = weights.second;
  MmaF16M16N8K8(sums, {a.x, a.y}, {exchanged.x}, sums);
  MmaF16M16N8K8(sums, {a.z, a.w}, {exchanged.y}, sums);
  MmaF16M16N8K8(sums, {b.x, b.y}, {exchanged.z}, sums);
  MmaF16M16N8K8(sums, {b.z, b.w}, {exchanged.w}, sums);
}
#endif

// A word of weights from its K: weight(k) gives the value, zero outside the matrix.
template <class Math, class Weight>
FASTRNN_DEVICE uint32_t WeightWord(const Weight& weight, int k) {
  if constexpr (sizeof(typename Math::Value) == 2) {
    return Word(weight(k), weight(k + 1));
  } else {
    return __float_as_uint(ForExchange<Math>(weight(k)));
  }
}

// Whether a weight also loads 16 bytes along K at once: Load16(row, k), if aligned().
template <class Weight>
constexpr bool kLoads16 = false;

template <class Math, class Weight>
FASTRNN_DEVICE uint4 RowWords(const Weight& weight, int row, int k) {
  if constexpr (kLoads16<Weight>) {
    if (weight.aligned()) {
      const uint4 words = weight.Load16(row, k);
      if constexpr (!std::is_same<Math, Tf32Math>::value) return words;
      return make_uint4(ToTf32(__uint_as_float(words.x)), ToTf32(__uint_as_float(words.y)),
                        ToTf32(__uint_as_float(words.z)), ToTf32(__uint_as_float(words.w)));
    }
  }
  const auto of_row = [&](int at) { return weight(row, at); };
  constexpr int kStep = 4 / sizeof(typename Math::Value);  // values of a word
  return make_uint4(WeightWord<Math>(of_row, k), WeightWord<Math>(of_row, k + kStep),
                    WeightWord<Math>(of_row, k + 2 * kStep),
                    WeightWord<Math>(of_row, k + 3 * kStep));
}

// The lane's words of a slice of the tile-th 16 rows of weight(row, k).
template <class Math, class Weight>
FASTRNN_DEVICE WeightWords LoadWeightWords(const Weight& weight, int tile, int slice) {
  constexpr int kSliceK = kSliceBytes / sizeof(typename Math::Value);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int row = tile * kTileRows + lane / 4, k = slice * kSliceK + lane % 4 * (kSliceK / 4);
  const uint4 low = RowWords<Math>(weight, row, k), high = RowWords<Math>(weight, row + 8, k);
  return {make_uint4(low.x, high.x, low.y, high.y), make_uint4(low.z, high.z, low.w, high.w)};
}

// Calls body(0), body(1), ... as long as it returns true, at most kCount times. An unrolled loop
// with a break, which clang does not unroll around instructions that a warp executes together.
template <int kCount, int kFirst = 0, class Body>
FASTRNN_DEVICE void While(const Body& body) {
  if constexpr (kFirst < kCount) {
    if (body(kFirst)) While<kCount, kFirst + 1>(body);
  }
}

}  // namespace cuda
}  // namespace fastrnn
