// The layers' types; part of the vocabulary that device.cuh describes.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "../../rnn.h"
#include "runtime.h"

namespace fastrnn {
namespace cuda {

using Half = __half;

// NVIDIA's own type needs a header that is incomplete in some toolkits and for some architectures.
struct Bfloat16 {
  uint16_t bits;
};

// The values of DType, and their types.
#define FASTRNN_CUDA_TYPES(ADD) \
  ADD(kFloat32, float)          \
  ADD(kFloat16, Half)           \
  ADD(kBfloat16, Bfloat16)

template <class T>
constexpr DType kDType = DType::kFloat32;
#define FASTRNN_DTYPE(value, T) \
  template <>                   \
  inline constexpr DType kDType<T> = DType::value;
FASTRNN_CUDA_TYPES(FASTRNN_DTYPE)
#undef FASTRNN_DTYPE

FASTRNN_DEVICE float ToFloat(float value) { return value; }
FASTRNN_DEVICE float ToFloat(Half value) { return __half2float(value); }
FASTRNN_DEVICE float ToFloat(Bfloat16 value) {
  return __uint_as_float(static_cast<uint32_t>(value.bits) << 16);
}

// Rounds to the nearest, ties to even.
template <class T>
FASTRNN_DEVICE T FromFloat(float value);
template <>
FASTRNN_DEVICE float FromFloat<float>(float value) {
  return value;
}
template <>
FASTRNN_DEVICE Half FromFloat<Half>(float value) {
  return __float2half_rn(value);
}
template <>
FASTRNN_DEVICE Bfloat16 FromFloat<Bfloat16>(float value) {
  const uint32_t bits = __float_as_uint(value);
  // Rounding could carry a NaN's mantissa into its sign, so a NaN is truncated.
  if (value != value) return {static_cast<uint16_t>(bits >> 16 | 0x40u)};
  return {static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}

}  // namespace cuda
}  // namespace fastrnn
