// A fiber: a stack of its own that the scheduler enters and that comes back to it. Switching costs
// some nanoseconds, so that thousands of CUDA threads can wait for each other.
#pragma once

#include <cstddef>

namespace emulator {

// The scheduler's side of a switch; one for each OS thread that runs kernels.
struct HostContext {
  void* stack_pointer = nullptr;
  void* fake_stack = nullptr;         // AddressSanitizer's
  const void* stack_begin = nullptr;  // AddressSanitizer's
  size_t stack_bytes = 0;             // AddressSanitizer's
  void* tsan_fiber = nullptr;
};

class Fiber {
 public:
  // On the first Enter, `entry` starts on a new stack; it must never return.
  Fiber(HostContext* host, void (*entry)());
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Scheduler to fiber; returns when the fiber calls Leave.
  void Enter();
  // Fiber to scheduler; returns at the next Enter.
  void Leave();
  // The first thing that `entry` has to call.
  void Arrived();

 private:
  HostContext* host_;
  char* stack_;
  void* stack_pointer_;
  void* fake_stack_ = nullptr;
  void* tsan_fiber_;
};

}  // namespace emulator
