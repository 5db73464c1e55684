// The emulator's half of csrc/cuda/runtime/device.cuh, which includes this file and describes the
// names.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda_emulator.h"

#define FASTRNN_SHARED(T, name, count)                          \
  T(&name)                                                      \
  [count] = *static_cast<T(*)[count]>(::emulator::StaticShared( \
      []() -> const void* {                                     \
        static char key;                                        \
        return &key;                                            \
      }(),                                                      \
      sizeof(T) * (count)))
#define FASTRNN_DYNAMIC_SHARED(name) unsigned char* name = ::emulator::DynamicShared()

namespace fastrnn {
namespace cuda {

inline void Trap(EMULATOR_SITE) { ::emulator::Fail("a trap", {"Trap", file, line}); }

// Left out as mutants, these two become relaxed accesses: plain ones ThreadSanitizer would report
// for themselves, whatever they were to order.
inline unsigned LoadAcquire(const unsigned* p, EMULATOR_SITE) {
  const ::emulator::Site site{"LoadAcquire", file, line};
  ::emulator::Poll(site);
  if (::emulator::IsLeftOut(site)) return __atomic_load_n(p, __ATOMIC_RELAXED);
  return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}
inline void StoreRelease(unsigned* p, unsigned value, EMULATOR_SITE) {
  const ::emulator::Site site{"StoreRelease", file, line};
  ::emulator::PerhapsYield(site);
  ::emulator::NoteProgress();
  if (::emulator::IsLeftOut(site)) return __atomic_store_n(p, value, __ATOMIC_RELAXED);
  __atomic_store_n(p, value, __ATOMIC_RELEASE);
}

inline float LoadExchanged(const float* p) { return *p; }
inline void CheckAlignment16(const void* p, ::emulator::Site site) {
  if (reinterpret_cast<uintptr_t>(p) % sizeof(uint4) == 0) return;
  ::emulator::Fail("an exchanged value is not aligned to 16 bytes", site);
}
inline uint4 LoadExchanged16(const void* p, EMULATOR_SITE) {
  CheckAlignment16(p, {"LoadExchanged16", file, line});
  return *static_cast<const uint4*>(p);
}
inline void StoreExchanged16(void* p, uint4 value, EMULATOR_SITE) {
  CheckAlignment16(p, {"StoreExchanged16", file, line});
  *static_cast<uint4*>(p) = value;
}

inline void ClusterBarrier(EMULATOR_SITE) {
  ::emulator::WaitForCluster({"ClusterBarrier", file, line});
}
template <class T>
T* ClusterShared(T* own, unsigned rank, EMULATOR_SITE) {
  return static_cast<T*>(::emulator::ClusterShared(own, rank, {"ClusterShared", file, line}));
}

inline void MmaF16M16N8K8(float (&d)[4], const uint32_t (&a)[2], const uint32_t (&b)[1],
                          const float (&c)[4], EMULATOR_SITE) {
  ::emulator::Mma< ::emulator::MmaType::kF16, 8>(d, a, b, c, {"MmaF16M16N8K8", file, line});
}
inline uint32_t ToTf32(float value) {
  uint32_t bits = __float_as_uint(value);
  const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
  if (finite) bits += 0x1000u;  // half of the last place that is kept
  return bits & 0xffffe000u;
}
inline void MmaTf32M16N8K8(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                           const float (&c)[4], EMULATOR_SITE) {
  ::emulator::Mma< ::emulator::MmaType::kTf32, 8>(d, a, b, c, {"MmaTf32M16N8K8", file, line});
}
inline void MmaF16M16N8K16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                           const float (&c)[4], EMULATOR_SITE) {
  ::emulator::Mma< ::emulator::MmaType::kF16, 16>(d, a, b, c, {"MmaF16M16N8K16", file, line});
}
inline void MmaBf16M16N8K16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                            const float (&c)[4], EMULATOR_SITE) {
  ::emulator::Mma< ::emulator::MmaType::kBf16, 16>(d, a, b, c, {"MmaBf16M16N8K16", file, line});
}

}  // namespace cuda
}  // namespace fastrnn
