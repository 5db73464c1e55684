// The part of the CUDA runtime that deals with memory, events and streams: everything is done when
// the call returns, and what streams wait for is counted.
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <algorithm>
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
std::map<void*, uint64_t> sizes;                             // of all arrays
uint64_t used = 0, most_used = 0;
bool copied_with_python_locked = false;
cudaStream_t captured = nullptr;  // the stream that is being captured
cudaStream_t forked = nullptr;    // one that waits for it, and is captured with it
bool capture_is_valid = true;
const cudaStream_t kAny = reinterpret_cast<cudaStream_t>(~uintptr_t{0});

// What CUDA answers to what cannot be part of a graph; the capture is lost.
cudaError_t Invalidate(cudaError_t error) {
  capture_is_valid = false;
  return error;
}

cudaStream_t Named(void* stream) {
  return stream == cudaStreamLegacy ? nullptr : static_cast<cudaStream_t>(stream);
}
bool IsCaptured(cudaStream_t stream) {
  return captured != nullptr && (Named(stream) == captured || stream == forked);
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
  captured = forked = nullptr;
  return capture_is_valid;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = reinterpret_cast<cudaStream_t>(new char);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete reinterpret_cast<char*>(stream);
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  *status = IsCaptured(stream) ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* properties) {
  *pool = reinterpret_cast<cudaMemPool_t>(uintptr_t{1} + properties->location.id);
  return cudaSuccess;
}
cudaError_t cudaMemPoolDestroy(cudaMemPool_t) { return cudaSuccess; }
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr attribute, void*) {
  const std::lock_guard<std::mutex> lock(mutex);
  if (attribute == cudaMemPoolAttrUsedMemHigh) most_used = used;
  return cudaSuccess;
}
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t, cudaMemPoolAttr attribute, void* value) {
  const std::lock_guard<std::mutex> lock(mutex);
  *static_cast<uint64_t*>(value) = attribute == cudaMemPoolAttrUsedMemHigh ? most_used : used;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** data, size_t bytes) {
  if (captured != nullptr) return Invalidate(cudaErrorStreamCaptureUnsupported);
  return cudaMallocFromPoolAsync(data, bytes, nullptr, nullptr);
}

cudaError_t cudaMallocFromPoolAsync(void** data, size_t bytes, cudaMemPool_t, cudaStream_t) {
  *data = std::malloc(bytes);
  // Whoever reads what nobody wrote shall see it.
  if (*data != nullptr) std::memset(*data, 0xff, bytes);
  const std::lock_guard<std::mutex> lock(mutex);
  sizes[*data] = bytes;
  used += bytes;
  most_used = std::max(most_used, used);
  return *data == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}

cudaError_t cudaFree(void* data) {
  {
    const std::lock_guard<std::mutex> lock(mutex);
    used -= sizes[data];
    sizes.erase(data);
  }
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
  Pointer(event)->captured = IsCaptured(stream);
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete Pointer(event);
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  // A wait that leads into a capture or out of it.
  const bool inside = IsCaptured(stream);
  if (Pointer(event)->captured && !inside && captured != nullptr) {
    forked = stream;  // becomes a part of the capture
  } else if (Pointer(event)->captured != inside) {
    return Invalidate(cudaErrorStreamCaptureIsolation);
  }
  const std::lock_guard<std::mutex> lock(mutex);
  ++waits[{Named(stream), Pointer(event)->stream}];
  ++waits[{Named(stream), kAny}];
  ++waits[{kAny, Pointer(event)->stream}];
  return cudaSuccess;
}
