// The cells' elementary functions, for host and device.
//
// The host versions in float32 are plain arithmetic without branches or library calls, so the
// compiler vectorises a loop over hidden units. They are accurate to a few units in the last place
// of float32, relative to the result for tanh (also near zero) and absolute for sigmoid. NaN stays
// NaN.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define FASTRNN_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define FASTRNN_HOST_DEVICE inline __attribute__((always_inline))
#endif

namespace fastrnn {
namespace cell {

#if defined(__CUDA_ARCH__)

// 1 / (1 + exp(-x)), by the two instructions for 2^x and 1 / x: a division with its rounding and
// its range takes a branch and a call for each gate.
//
// Errors, in units of u = 2^-24: the CUDA C++ Programming Guide gives exp in this form (__expf) 2 +
// 1.173 |x| units in the last place, and the reciprocal (__fdividef) 2. A unit in the last place is
// at most 2 u of the number. With s = 1 / (1 + e) and the rounding of the sum, the error is at most
//   s * (1 - s) * (4 + 2.35 |x|) u + (1 + 4) s u,
// which is below 5.4 u or 3.3e-7 for all x (tests/kernels/test_device_math.py). Subnormal numbers
// are flushed to zero: exp(-x), which is added to 1, and a result below 1.2e-38. At -infinity exp
// is infinite, and the result 0; at infinity it is 1; NaN stays NaN.
FASTRNN_HOST_DEVICE float Sigmoid(float x) {
  constexpr float kLog2E = 1.44269504f;
  float e, s;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(-kLog2E * x));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(s) : "f"(1.0f + e));
  return s;
}
// No branch, and the same two instructions beside a polynomial for small x.
FASTRNN_HOST_DEVICE float Tanh(float x) { return tanhf(x); }

#else

// exp(x) = scale * (1 + remainder) with scale a power of two and |remainder| < 0.42, for x >= -87.
// Above 88.4 scale is infinite, up to 88.8.
struct ExpParts {
  float scale;
  float remainder;
};

FASTRNN_HOST_DEVICE ExpParts ExpSplit(float x) {
  constexpr float kLog2E = 1.44269504f;
  // ln 2 in two parts; the first has few enough bits that its product with an exponent is exact.
  constexpr float kLn2High = 0.693359375f;
  constexpr float kLn2Low = -2.12194440e-4f;
  // Adding 1.5 * 2^23 rounds to an integer, which is then in the low bits of the mantissa.
  constexpr float kRound = 12582912.0f;
  const float shifted = x * kLog2E + kRound;
  const float exponent = shifted - kRound;
  const float r = (x - exponent * kLn2High) - exponent * kLn2Low;
  // The Taylor series of (exp(r) - 1 - r) / r^2; |r| <= ln(2) / 2 leaves an error below 1e-8. It is
  // summed in pairs of terms, which do not wait for each other.
  const float square = r * r;
  const float last = r * (1.0f / 5040) + 1.0f / 720;
  const float middle = r * (1.0f / 120) + 1.0f / 24;
  const float first = r * (1.0f / 6) + 0.5f;
  const float p = (last * square + middle) * square + first;
  uint32_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits << 23) + 0x3f800000u;
  ExpParts parts;
  std::memcpy(&parts.scale, &bits, sizeof bits);
  parts.remainder = r + square * p;
  return parts;
}

// Comparisons with NaN are false, so NaN passes through.
FASTRNN_HOST_DEVICE float Clamp(float x, float low, float high) {
  x = x > high ? high : x;
  return x < low ? low : x;
}

FASTRNN_HOST_DEVICE float Sigmoid(float x) {
  // exp overflows at the upper bound, so that a closed gate is exactly 0.
  const ExpParts e = ExpSplit(Clamp(-x, -87.0f, 88.8f));
  return 1.0f / (1.0f + e.scale * (1.0f + e.remainder));
}

// tanh(x) = (exp(2x) - 1) / (exp(2x) + 1), with exp(2x) - 1 formed without cancellation.
FASTRNN_HOST_DEVICE float Tanh(float x) {
  const ExpParts e = ExpSplit(Clamp(2.0f * x, -20.0f, 20.0f));
  const float expm1 = e.scale * e.remainder + (e.scale - 1.0f);
  return expm1 / (expm1 + 2.0f);
}

// In float64 the C library's functions, which are accurate to a unit in the last place or two: such
// layers check others' gradients.
FASTRNN_HOST_DEVICE double Sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }
FASTRNN_HOST_DEVICE double Tanh(double x) { return std::tanh(x); }

#endif

template <class Real>
FASTRNN_HOST_DEVICE Real Relu(Real x) {
  return x < 0 ? 0 : x;
}

}  // namespace cell
}  // namespace fastrnn
