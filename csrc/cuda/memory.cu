#include <algorithm>
#include <utility>

#include "device_scope.h"
#include "memory.h"

namespace fastrnn {
namespace cuda {
namespace {

cudaStream_t AsStream(void* stream) { return static_cast<cudaStream_t>(stream); }
cudaEvent_t AsEvent(void* event) { return static_cast<cudaEvent_t>(event); }

// From the device's pool where it has one, which a few old or virtual devices do not. Returns
// whether it was the pool.
bool Allocate(void** data, size_t bytes, cudaStream_t stream) {
  const cudaError_t status = cudaMallocAsync(data, bytes, stream);
  if (status != cudaErrorNotSupported) {
    FASTRNN_CUDA_TRY(status);
    return true;
  }
  cudaGetLastError();
  FASTRNN_CUDA_TRY(cudaMalloc(data, bytes));
  return false;
}

}  // namespace

Event::Event(int device, void* stream) : device_(device), stream_(stream) {
  const DeviceScope scope(device_);
  cudaEvent_t event;
  FASTRNN_CUDA_TRY(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  event_ = event;
  const cudaError_t status = cudaEventRecord(event, AsStream(stream));
  if (status != cudaSuccess) cudaEventDestroy(event);
  FASTRNN_CUDA_TRY(status);
}

// Destructors here cannot report a failure. There is none, but that the process ends and CUDA was
// shut down before; then everything has been given back.
Event::~Event() { cudaEventDestroy(AsEvent(event_)); }

void Event::Delay(void* stream) const {
  const DeviceScope scope(device_);
  FASTRNN_CUDA_TRY(cudaStreamWaitEvent(AsStream(stream), AsEvent(event_), 0));
}

Memory::Memory(int device, size_t bytes, void* stream) : device_(device), stream_(stream) {
  const DeviceScope scope(device_);
  pooled_ = Allocate(&data_, std::max<size_t>(bytes, 1), AsStream(stream_));
}

Memory::~Memory() {
  int previous = 0;
  if (cudaGetDevice(&previous) != cudaSuccess) return;
  cudaSetDevice(device_);
  for (const auto& [stream, end] : ends_) {
    if (stream != stream_) cudaStreamWaitEvent(AsStream(stream_), AsEvent(end->event_), 0);
  }
  if (pooled_) {
    cudaFreeAsync(data_, AsStream(stream_));
  } else {
    cudaFree(data_);
  }
  cudaSetDevice(previous);
}

void Memory::Publish(const std::shared_ptr<const Event>& ready) {
  stream_ = nullptr;
  ready_ = ready;
  KeepUntil(ready);
}

void Memory::KeepUntil(std::shared_ptr<const Event> end) {
  void* const stream = end->stream();
  ends_[stream] = std::move(end);
}

void Memory::Delay(void* stream) const {
  if (ready_ != nullptr) ready_->Delay(stream);
}

void FillWithZeros(const Memory& memory, size_t bytes, void* stream) {
  const DeviceScope scope(memory.device());
  FASTRNN_CUDA_TRY(cudaMemsetAsync(memory.data(), 0, bytes, AsStream(stream)));
}

void CopyToDevice(const Memory& to, const void* from, size_t bytes) {
  const DeviceScope scope(to.device());
  FASTRNN_CUDA_TRY(cudaMemcpy(to.data(), from, bytes, cudaMemcpyHostToDevice));
}

void CopyToHost(void* to, const Memory& from, size_t bytes) {
  const DeviceScope scope(from.device());
  from.Delay(nullptr);
  FASTRNN_CUDA_TRY(cudaMemcpy(to, from.data(), bytes, cudaMemcpyDeviceToHost));
}

}  // namespace cuda
}  // namespace fastrnn
