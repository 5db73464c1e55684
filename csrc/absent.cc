// What stands in the place of a backend that a build leaves out.
#include "cuda/device_info.h"
#include "cuda/heuristics.h"
#include "cuda/memory.h"
#include "error.h"
#include "rnn.h"

namespace fastrnn {
namespace {

[[noreturn, maybe_unused]] void Absent(const char* kernels, const char* part) {
  throw InvalidArgument(std::string("this build of fastrnn has no ") + kernels +
                            " kernels: it was built without " + part,
                        __FILE__, __LINE__);
}

}  // namespace

#ifndef FASTRNN_WITH_ONEDNN
namespace cpu {
size_t ForwardWorkspaceBytes(const LayerDesc&) { Absent("CPU", "oneDNN"); }
size_t BackwardWorkspaceBytes(const LayerDesc&) { Absent("CPU", "oneDNN"); }
void Forward(const LayerDesc&, const ForwardArgs&) { Absent("CPU", "oneDNN"); }
void Backward(const LayerDesc&, const BackwardArgs&) { Absent("CPU", "oneDNN"); }
}  // namespace cpu
#endif

#ifndef FASTRNN_WITH_CUDA
namespace cuda {
namespace {
[[noreturn]] void NoCuda() { Absent("CUDA", "the CUDA toolkit"); }
}  // namespace

size_t ForwardWorkspaceBytes(const LayerDesc&) { NoCuda(); }
size_t BackwardWorkspaceBytes(const LayerDesc&) { NoCuda(); }
void Forward(const LayerDesc&, const ForwardArgs&) { NoCuda(); }
void Backward(const LayerDesc&, const BackwardArgs&) { NoCuda(); }
DeviceFacts FactsOf(int) { NoCuda(); }
Choice ChooseOnDevice(Pass, const LayerDesc&) { NoCuda(); }

Devices QueryDevices() {
  Devices none;
  none.error = "built without CUDA";
  return none;
}

Event::Event(int, void*) { NoCuda(); }
Event::~Event() = default;
void Event::Delay(void*) const { NoCuda(); }
Memory::Memory(int, size_t, void*) { NoCuda(); }
Memory::~Memory() = default;
void Memory::Publish(const std::shared_ptr<const Event>&) { NoCuda(); }
void Memory::KeepUntil(std::shared_ptr<const Event>) { NoCuda(); }
void Memory::Delay(void*) const { NoCuda(); }
void Memory::DelayForWriting(void*) const { NoCuda(); }
bool IsCapturing(int, void*) { NoCuda(); }
PoolBytes PoolBytesOf(int, bool) { NoCuda(); }
void FillWithZeros(int, void*, size_t, void*) { NoCuda(); }
void CopyToDevice(const Memory&, const void*, size_t) { NoCuda(); }
void CopyToHost(void*, const Memory&, size_t) { NoCuda(); }
}  // namespace cuda
#endif

}  // namespace fastrnn
