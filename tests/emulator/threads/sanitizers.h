// What AddressSanitizer and ThreadSanitizer have to be told about fibers. Every function here does
// nothing in a build without the sanitizer that it is about.
//
// Under ThreadSanitizer each CUDA thread is one of its threads. Switching between fibers is no
// synchronisation in its eyes; only Release and Acquire on the same address are. So a kernel that
// lacks a barrier is reported as a race even where the emulator's order hides it.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(EMULATOR_TSAN)
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif

namespace emulator {

inline void TsanRelease([[maybe_unused]] void* address) {
#if defined(EMULATOR_TSAN)
  __tsan_release(address);
#endif
}

inline void TsanAcquire([[maybe_unused]] void* address) {
#if defined(EMULATOR_TSAN)
  __tsan_acquire(address);
#endif
}

inline void* TsanCurrentFiber() {
#if defined(EMULATOR_TSAN)
  return __tsan_get_current_fiber();
#else
  return nullptr;
#endif
}

inline void* TsanCreateFiber() {
#if defined(EMULATOR_TSAN)
  return __tsan_create_fiber(0);
#else
  return nullptr;
#endif
}

inline void TsanDestroyFiber([[maybe_unused]] void* fiber) {
#if defined(EMULATOR_TSAN)
  __tsan_destroy_fiber(fiber);
#endif
}

inline void TsanSwitch([[maybe_unused]] void* fiber) {
#if defined(EMULATOR_TSAN)
  __tsan_switch_to_fiber(fiber, __tsan_switch_to_fiber_no_sync);
#endif
}

// The scheduler reads and writes the fibers' variables on purpose: while one of these lives, what
// the current TSan thread does is not looked at.
class TsanIgnore {
 public:
#if defined(EMULATOR_TSAN)
  TsanIgnore() {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~TsanIgnore() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
#else
  TsanIgnore() {}
#endif
  TsanIgnore(const TsanIgnore&) = delete;
  TsanIgnore& operator=(const TsanIgnore&) = delete;
};

// Call before leaving a stack for another one; fake_stack keeps this stack's state.
inline void AsanLeave([[maybe_unused]] void** fake_stack, [[maybe_unused]] const void* other_stack,
                      [[maybe_unused]] size_t other_bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(fake_stack, other_stack, other_bytes);
#endif
}

// Call after arriving on a stack; optionally tells about the stack that was left.
inline void AsanArrive([[maybe_unused]] void* fake_stack,
                       [[maybe_unused]] const void** left_stack = nullptr,
                       [[maybe_unused]] size_t* left_bytes = nullptr) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack, left_stack, left_bytes);
#endif
}

inline void AsanPoison([[maybe_unused]] const void* begin, [[maybe_unused]] size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_poison_memory_region(begin, bytes);
#endif
}

inline void AsanUnpoison([[maybe_unused]] const void* begin, [[maybe_unused]] size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(begin, bytes);
#endif
}

}  // namespace emulator
