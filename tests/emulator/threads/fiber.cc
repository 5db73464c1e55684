#include "fiber.h"

#include <sys/mman.h>

#include <new>

#include "sanitizers.h"

#if !defined(__x86_64__) || !defined(__linux__)
#error "the emulator switches stacks with code for x86-64 Linux"
#endif

// Saves the registers that a callee must preserve, and swaps stacks.
extern "C" void EmulatorSwitch(void** save_stack_pointer, void* stack_pointer);
asm(R"(
.pushsection .text
.globl EmulatorSwitch
.hidden EmulatorSwitch
.type EmulatorSwitch, @function
EmulatorSwitch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size EmulatorSwitch, .-EmulatorSwitch
.popsection
)");

namespace emulator {
namespace {

constexpr size_t kStackBytes = 256 << 10;
constexpr size_t kGuardBytes = 4096;
constexpr int kSavedRegisters = 6;

}  // namespace

Fiber::Fiber(HostContext* host, void (*entry)()) : host_(host) {
  void* memory = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  stack_ = static_cast<char*>(memory);
  if (mprotect(stack_, kGuardBytes, PROT_NONE) != 0) throw std::bad_alloc();
  // As if `entry` had been called from address 0, and had then called EmulatorSwitch. The mapping
  // is zero, which will do for the saved registers. At the entry of a function the stack pointer is
  // 8 past a multiple of 16.
  void** top = reinterpret_cast<void**>(stack_ + kStackBytes - 16);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(entry);
  stack_pointer_ = top - kSavedRegisters;
  tsan_fiber_ = TsanCreateFiber();
}

Fiber::~Fiber() {
  TsanDestroyFiber(tsan_fiber_);
  AsanUnpoison(stack_, kStackBytes);
  munmap(stack_, kStackBytes);
}

void Fiber::Enter() {
  host_->tsan_fiber = TsanCurrentFiber();
  TsanSwitch(tsan_fiber_);
  AsanLeave(&host_->fake_stack, stack_, kStackBytes);
  EmulatorSwitch(&host_->stack_pointer, stack_pointer_);
  AsanArrive(host_->fake_stack);
}

void Fiber::Leave() {
  TsanSwitch(host_->tsan_fiber);
  AsanLeave(&fake_stack_, host_->stack_begin, host_->stack_bytes);
  EmulatorSwitch(&stack_pointer_, host_->stack_pointer);
  AsanArrive(fake_stack_);
}

void Fiber::Arrived() { AsanArrive(nullptr, &host_->stack_begin, &host_->stack_bytes); }

}  // namespace emulator
