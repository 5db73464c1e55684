#include "number.h"

#include <cstring>

#include "clones.h"

namespace fastrnn {
namespace cpu {
namespace {

#define FASTRNN_INLINE inline __attribute__((always_inline))

FASTRNN_INLINE float FromBits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
FASTRNN_INLINE uint32_t ToBits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// Choices between results instead of branches, which would keep loops scalar.
FASTRNN_INLINE float ToFloat(Half number) {
  const uint32_t magnitude = number.bits & 0x7fffu;
  const uint32_t sign = static_cast<uint32_t>(number.bits & 0x8000u) << 16;
  // float16's exponents begin 112 after those of float32, and its last one is for infinity and NaN.
  const uint32_t normal = (magnitude << 13) + (112u << 23);
  const uint32_t special = (magnitude << 13) | 0x7f800000u;
  const uint32_t subnormal = ToBits(static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f);
  const uint32_t finite = magnitude < 0x400u ? subnormal : normal;
  return FromBits((magnitude >= 0x7c00u ? special : finite) | sign);
}

FASTRNN_INLINE float ToFloat(Bfloat16 number) {
  return FromBits(static_cast<uint32_t>(number.bits) << 16);
}

FASTRNN_INLINE void Round(float value, Half* to) {
  const uint32_t bits = ToBits(value), magnitude = bits & 0x7fffffffu;
  const uint32_t even = magnitude >> 13 & 1u;
  const uint32_t rounded = (magnitude + 0xfffu + even - (112u << 23)) >> 13;
  const uint32_t normal = rounded < 0x7c00u ? rounded : 0x7c00u;
  // The sum's last place is float16's: adding 0.5 rounds.
  const uint32_t subnormal = ToBits(FromBits(magnitude) + 0.5f) - ToBits(0.5f);
  const uint32_t number = magnitude < 0x38800000u ? subnormal : normal;
  to->bits =
      static_cast<uint16_t>((magnitude > 0x7f800000u ? 0x7e00u : number) | (bits >> 16 & 0x8000u));
}

FASTRNN_INLINE void Round(float value, Bfloat16* to) {
  const uint32_t bits = ToBits(value);
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  // Rounding could carry a NaN's mantissa into its sign, so a NaN is truncated.
  to->bits = static_cast<uint16_t>(value != value ? (bits >> 16 | 0x40u) : rounded);
}

}  // namespace

#define FASTRNN_CONVERSIONS(T)                                                             \
  FASTRNN_CLONES void Convert(const T* from, int64_t values, float* to) {                  \
    _Pragma("omp simd") for (int64_t i = 0; i < values; ++i) { to[i] = ToFloat(from[i]); } \
  }                                                                                        \
  FASTRNN_CLONES void Convert(const float* from, int64_t values, T* to) {                  \
    _Pragma("omp simd") for (int64_t i = 0; i < values; ++i) { Round(from[i], &to[i]); }   \
  }
FASTRNN_CONVERSIONS(Half)
FASTRNN_CONVERSIONS(Bfloat16)

void Convert(DType dtype, const void* from, int64_t values, float* to) {
  if (dtype == DType::kFloat16) return Convert(static_cast<const Half*>(from), values, to);
  Convert(static_cast<const Bfloat16*>(from), values, to);
}

void Convert(DType dtype, const float* from, int64_t values, void* to) {
  if (dtype == DType::kFloat16) return Convert(from, values, static_cast<Half*>(to));
  Convert(from, values, static_cast<Bfloat16*>(to));
}

}  // namespace cpu
}  // namespace fastrnn
