// The 16-bit types of arrays on the host, and conversions of whole arrays.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../../rnn.h"

namespace fastrnn {
namespace cpu {

struct Half {
  uint16_t bits;
};
struct Bfloat16 {
  uint16_t bits;
};

template <class T>
constexpr DType kDType = DType::kFloat32;
template <>
inline constexpr DType kDType<double> = DType::kFloat64;
template <>
inline constexpr DType kDType<Half> = DType::kFloat16;
template <>
inline constexpr DType kDType<Bfloat16> = DType::kBfloat16;

// To 16 bits, numbers are rounded to the nearest, ties to even. NaN stays NaN.
void Convert(const Half* from, int64_t values, float* to);
void Convert(const Bfloat16* from, int64_t values, float* to);
void Convert(const float* from, int64_t values, Half* to);
void Convert(const float* from, int64_t values, Bfloat16* to);

// A copy, where the arithmetic has the array's type; `from` may be `to`.
template <class T>
void Convert(const T* from, int64_t values, T* to) {
  if (from != to) std::copy_n(from, values, to);
}

// Between float32 and an array of a 16-bit type.
void Convert(DType dtype, const void* from, int64_t values, float* to);
void Convert(DType dtype, const float* from, int64_t values, void* to);

}  // namespace cpu
}  // namespace fastrnn
