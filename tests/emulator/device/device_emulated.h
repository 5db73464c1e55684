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

template <class T>
T* KeepAddress(T* address) {
  return address;
}

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
  return ::emulator::PerhapsStale(p, *static_cast<const uint4*>(p));
}
inline void StoreExchanged16(void* p, uint4 value, EMULATOR_SITE) {
  CheckAlignment16(p, {"StoreExchanged16", file, line});
  *static_cast<uint4*>(p) = value;
}

inline void StoreTagged(uint32_t* p, uint32_t word, EMULATOR_SITE) {
  ::emulator::PerhapsYield({"StoreTagged", file, line});
  ::emulator::NoteProgress();
  __atomic_store_n(p, word, __ATOMIC_RELAXED);
}
inline uint4 LoadTagged16(const uint32_t* p, EMULATOR_SITE) {
  const ::emulator::Site site{"LoadTagged16", file, line};
  CheckAlignment16(p, site);
  ::emulator::Poll(site);
  return make_uint4(__atomic_load_n(p, __ATOMIC_RELAXED), __atomic_load_n(p + 1, __ATOMIC_RELAXED),
                    __atomic_load_n(p + 2, __ATOMIC_RELAXED),
                    __atomic_load_n(p + 3, __ATOMIC_RELAXED));
}
// Each lane for itself, which is weaker. Left out as a mutant, words are taken as they are.
inline bool HasArrived(uint32_t difference, EMULATOR_SITE) {
  return ::emulator::IsLeftOut({"HasArrived", file, line}) || difference == 0;
}

inline void ClusterBarrier(EMULATOR_SITE) {
  ::emulator::WaitForCluster({"ClusterBarrier", file, line});
}
constexpr bool kHasClusters = FASTRNN_ARCH >= 900;

// A barrier of bytes: in the low half how many are missing; above it the phase, whether the block
// has said what it expects in this phase, and a mark that uninitialised memory does not have.
constexpr uint64_t kByteBarrierMark = uint64_t{0x5eb1} << 48;
constexpr uint64_t kByteBarrierPhase = uint64_t{1} << 32, kByteBarrierExpects = uint64_t{1} << 33;

inline void CheckByteBarrier(uint64_t state, ::emulator::Site site) {
  if (state >> 48 == kByteBarrierMark >> 48) return;
  ::emulator::Fail("a barrier of bytes that was not initialised", site);
}
// Threads change places only where they poll, so reading and writing need not be one operation.
inline void ChangeByteBarrier(uint64_t* barrier, int more, bool expects, ::emulator::Site site) {
  const uint64_t state = __atomic_load_n(barrier, __ATOMIC_RELAXED);
  CheckByteBarrier(state, site);
  if (expects && (state & kByteBarrierExpects) != 0) {
    ::emulator::Fail("bytes are expected twice in a phase", site);
  }
  const auto missing = static_cast<uint32_t>(state) + static_cast<uint32_t>(more);
  uint64_t changed = (state & ~uint64_t{0xffffffff}) | missing;
  if (expects) changed |= kByteBarrierExpects;
  if (missing == 0 && (changed & kByteBarrierExpects) != 0) {
    changed = (changed & ~kByteBarrierExpects) ^ kByteBarrierPhase;
  }
  ::emulator::NoteProgress();
  if (::emulator::IsLeftOut(site)) {
    __atomic_exchange_n(barrier, changed, __ATOMIC_RELAXED);
  } else {
    __atomic_exchange_n(barrier, changed, __ATOMIC_RELEASE);
  }
}
inline void InitByteBarrier(uint64_t* barrier, EMULATOR_SITE) {
  if (::emulator::IsLeftOut({"InitByteBarrier", file, line})) return;
  *barrier = kByteBarrierMark;
}
inline void ExpectBytes(uint64_t* barrier, unsigned bytes, EMULATOR_SITE) {
  const ::emulator::Site site{"ExpectBytes", file, line};
  if (::emulator::IsLeftOut(site)) return;
  ChangeByteBarrier(barrier, static_cast<int>(bytes), true, site);
}
// Left out as a mutant, the count is not a release.
inline void StoreToCluster(float* to, unsigned rank, float4 value, uint64_t* barrier,
                           EMULATOR_SITE) {
  const ::emulator::Site site{"StoreToCluster", file, line};
  ::emulator::PerhapsYield(site);
  if (reinterpret_cast<uintptr_t>(to) % sizeof(float4) != 0) {
    ::emulator::Fail("a store into a cluster is not aligned to 16 bytes", site);
  }
  *static_cast<float4*>(::emulator::ClusterShared(to, rank, site)) = value;
  ChangeByteBarrier(static_cast<uint64_t*>(::emulator::ClusterShared(barrier, rank, site)),
                    -static_cast<int>(sizeof(float4)), false, site);
}
inline void WaitForBytes(const uint64_t* barrier, unsigned phase, EMULATOR_SITE) {
  const ::emulator::Site site{"WaitForBytes", file, line};
  if (::emulator::IsLeftOut(site)) return;
  uint64_t state = 0;
  do {
    ::emulator::Poll(site);
    state = __atomic_load_n(barrier, __ATOMIC_ACQUIRE);
    CheckByteBarrier(state, site);
  } while ((state & kByteBarrierPhase) == (phase == 0 ? 0 : kByteBarrierPhase));
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
