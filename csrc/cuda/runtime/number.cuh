// 16-bit numbers; part of the vocabulary that device.cuh describes.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "runtime.h"

namespace fastrnn {
namespace cuda {

using Half = __half;

// NVIDIA's own type wants a header that not every toolkit and architecture has whole.
struct Bfloat16 {
  uint16_t bits;
};

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
  // Rounding could carry a NaN's mantissa into its sign; a NaN stays one without.
  if (value != value) return {static_cast<uint16_t>(bits >> 16 | 0x40u)};
  return {static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}

}  // namespace cuda
}  // namespace fastrnn
