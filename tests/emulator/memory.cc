// The part of the CUDA runtime that deals with memory, events and streams: everything is done when
// the call returns, and what streams wait for is counted.
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include "control.h"

namespace {

struct Event {
  cudaStream_t stream = nullptr;
  bool captured = false;
};

std::mutex mutex;
std::map<std::pair<cudaStream_t, cudaStream_t>, int> waits;  // of the first stream for the second
bool copied_with_python_locked = false;
cudaStream_t captured = nullptr;  // the stream that is being captured
bool capture_is_valid = true;

// What CUDA answers to what cannot be part of a graph; the capture is lost.
cudaError_t Invalidate(cudaError_t error) {
  capture_is_valid = false;
  return error;
}

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

void emulator_begin_capture(void* stream) {
  captured = Named(stream);
  capture_is_valid = true;
}
int emulator_end_capture() {
  captured = nullptr;
  return capture_is_valid;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  const bool capturing = captured != nullptr && Named(stream) == captured;
  *status = capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* properties) {
  *pool = reinterpret_cast<cudaMemPool_t>(uintptr_t{1} + properties->location.id);
  return cudaSuccess;
}
cudaError_t cudaMemPoolDestroy(cudaMemPool_t) { return cudaSuccess; }
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }

cudaError_t cudaMalloc(void** data, size_t bytes) {
  if (captured != nullptr) return Invalidate(cudaErrorStreamCaptureUnsupported);
  return cudaMallocFromPoolAsync(data, bytes, nullptr, nullptr);
}

cudaError_t cudaMallocFromPoolAsync(void** data, size_t bytes, cudaMemPool_t, cudaStream_t) {
  *data = std::malloc(bytes);
  // Whoever reads what nobody wrote shall see it.
  if (*data != nullptr) std::memset(*data, 0xff, bytes);
  return *data == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}

cudaError_t cudaFree(void* data) {
  std::free(data);
  return cudaSuccess;
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
  Pointer(event)->captured = captured != nullptr && Named(stream) == captured;
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete Pointer(event);
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  // A wait that leads into a capture or out of it.
  if (Pointer(event)->captured != (captured != nullptr && Named(stream) == captured)) {
    return Invalidate(cudaErrorStreamCaptureIsolation);
  }
  const std::lock_guard<std::mutex> lock(mutex);
  ++waits[{Named(stream), Pointer(event)->stream}];
  return cudaSuccess;
}
