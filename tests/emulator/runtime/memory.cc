// The part of the CUDA runtime that deals with memory, events and streams. What streams wait for is
// counted.
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "capture.h"
#include "control.h"
#include "emulator.h"

namespace {

using emulator::Named;
using emulator::NoteError;
using emulator::Point;

std::mutex mutex;
std::map<std::pair<cudaStream_t, cudaStream_t>, int> waits;  // of the first stream for the second
std::map<void*, uint64_t> sizes;                             // of all arrays
uint64_t used = 0, most_used = 0;
bool copied_with_python_locked = false;
const cudaStream_t kAny = reinterpret_cast<cudaStream_t>(~uintptr_t{0});

Point* Pointer(cudaEvent_t event) { return reinterpret_cast<Point*>(event); }

}  // namespace

int emulator_waits(void* stream, void* other) {
  const std::lock_guard<std::mutex> lock(mutex);
  return waits[{Named(stream), Named(other)}];
}

int emulator_copied_with_python_locked() { return copied_with_python_locked; }

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = reinterpret_cast<cudaStream_t>(new char);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete reinterpret_cast<char*>(stream);
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
  return cudaMallocFromPoolAsync(data, bytes, nullptr, nullptr);
}

cudaError_t cudaMallocFromPoolAsync(void** data, size_t bytes, cudaMemPool_t, cudaStream_t) {
  const std::lock_guard<std::mutex> lock(mutex);
  *data = std::malloc(bytes);
  // So that reading what was not written shows.
  if (*data != nullptr) std::memset(*data, 0xff, bytes);
  sizes[*data] = bytes;
  used += bytes;
  most_used = std::max(most_used, used);
  return *data == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}

cudaError_t cudaFree(void* data) {
  const std::lock_guard<std::mutex> lock(mutex);
  used -= sizes[data];
  sizes.erase(data);
  std::free(data);
  return cudaSuccess;
}

// A graph has its arrays for as long as it is there.
cudaError_t cudaFreeAsync(void* data, cudaStream_t stream) {
  if (!emulator::IsCaptured(stream)) return cudaFree(data);
  const std::shared_ptr<void> owned(data, cudaFree);
  return NoteError(emulator::Enqueue(stream, [owned] { return cudaSuccess; }));
}

cudaError_t cudaMemcpy(void* destination, const void* source, size_t bytes, cudaMemcpyKind) {
  const auto locked = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "PyGILState_Check"));
  copied_with_python_locked = locked != nullptr && locked() != 0;
  std::memcpy(destination, source, bytes);
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = reinterpret_cast<cudaEvent_t>(new Point);
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  *Pointer(event) = emulator::PointOf(stream);
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete Pointer(event);
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const cudaError_t status = emulator::Follow(stream, *Pointer(event));
  if (status != cudaSuccess) return NoteError(status);
  const std::lock_guard<std::mutex> lock(mutex);
  ++waits[{Named(stream), Pointer(event)->stream}];
  ++waits[{Named(stream), kAny}];
  ++waits[{kAny, Pointer(event)->stream}];
  return cudaSuccess;
}
