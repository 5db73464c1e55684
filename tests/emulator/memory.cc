// The part of the CUDA runtime that deals with memory, events and streams: everything is done when
// the call returns, and what streams wait for is counted.
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include "control.h"

namespace {

struct Event {
  cudaStream_t stream = nullptr;
};

std::mutex mutex;
std::map<std::pair<cudaStream_t, cudaStream_t>, int> waits;  // of the first stream for the second
bool copied_with_python_locked = false;

cudaStream_t Named(void* stream) {
  return stream == cudaStreamLegacy ? nullptr : static_cast<cudaStream_t>(stream);
}
Event* Pointer(cudaEvent_t event) { return reinterpret_cast<Event*>(event); }

}  // namespace

int emulator_waits(void* stream, void* other) {
  const std::lock_guard<std::mutex> lock(mutex);
  return waits[{Named(stream), Named(other)}];
}

int emulator_copied_with_python_locked() { return copied_with_python_locked; }

cudaError_t cudaMalloc(void** data, size_t bytes) {
  *data = std::malloc(bytes);
  // Whoever reads what nobody wrote shall see it.
  if (*data != nullptr) std::memset(*data, 0xff, bytes);
  return *data == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}

cudaError_t cudaFree(void* data) {
  std::free(data);
  return cudaSuccess;
}

cudaError_t cudaMallocAsync(void** data, size_t bytes, cudaStream_t) {
  return cudaMalloc(data, bytes);
}

cudaError_t cudaFreeAsync(void* data, cudaStream_t) { return cudaFree(data); }

cudaError_t cudaMemcpy(void* destination, const void* source, size_t bytes, cudaMemcpyKind) {
  const auto locked = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "PyGILState_Check"));
  copied_with_python_locked = locked != nullptr && locked() != 0;
  std::memcpy(destination, source, bytes);
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = reinterpret_cast<cudaEvent_t>(new Event);
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  Pointer(event)->stream = Named(stream);
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete Pointer(event);
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const std::lock_guard<std::mutex> lock(mutex);
  ++waits[{Named(stream), Pointer(event)->stream}];
  return cudaSuccess;
}
