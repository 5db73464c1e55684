// The names that CUDA C++ has without any include, as far as kernels here may use them.
#pragma once

#include <cmath>
#include <cstring>
#include <type_traits>

#include "emulator.h"

// NVIDIA's host headers define some of these for compilers other than nvcc.
#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __shared__
#define __shared__ static_assert(false, "use the shared arrays of device.cuh");

// The place of the call, as further parameters with defaults.
#define EMULATOR_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(EMULATOR_SITE) { emulator::WaitAtBarrier({"__syncthreads", file, line}); }
inline void __syncwarp(unsigned mask = emulator::kFullWarp, EMULATOR_SITE) {
  emulator::WaitForWarp(mask, {"__syncwarp", file, line});
}
inline void __threadfence(EMULATOR_SITE) { emulator::Fence({"__threadfence", file, line}); }

namespace emulator {

// The type of a parameter that does not take part in deduction, as CUDA's overloads behave.
template <class T>
struct Identity {
  using type = T;
};
template <class T>
using Same = typename Identity<T>::type;

// *p = change(*p), atomically; returns the old value. Relaxed, unless a fence went before.
template <class T, class Change>
T Atomically(T* p, Change change, Site site) {
  static_assert(std::is_integral<T>::value, "float atomics would make results depend on order");
  const int order = BeforeAtomic(p, site) ? __ATOMIC_RELEASE : __ATOMIC_RELAXED;
  T old = __atomic_load_n(p, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(p, &old, change(old), true, order, __ATOMIC_RELAXED)) {
  }
  return old;
}

}  // namespace emulator

template <class T>
T atomicAdd(T* p, emulator::Same<T> value, EMULATOR_SITE) {
  return emulator::Atomically(p, [value](T old) { return static_cast<T>(old + value); },
                              {"atomicAdd", file, line});
}

inline unsigned __float_as_uint(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline float __uint_as_float(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
template <class T>
constexpr T min(T a, emulator::Same<T> b) {
  return b < a ? b : a;
}
template <class T>
constexpr T max(T a, emulator::Same<T> b) {
  return a < b ? b : a;
}

namespace cooperative_groups {

struct grid_group {
  void sync(EMULATOR_SITE) const { emulator::WaitForGrid({"grid.sync", file, line}); }
};
inline grid_group this_grid() { return {}; }

}  // namespace cooperative_groups
