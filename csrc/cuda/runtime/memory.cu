#include <algorithm>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "device_scope.h"
#include "memory.h"

namespace fastrnn {
namespace cuda {
namespace {

cudaStream_t AsStream(void* stream) { return static_cast<cudaStream_t>(stream); }

// Null if the device has no pools; a few old or virtual ones have none.
cudaMemPool_t NewPool(int device) {
  int supported = 0;
  const cudaError_t known =
      cudaDeviceGetAttribute(&supported, cudaDevAttrMemoryPoolsSupported, device);
  if (known == cudaErrorInvalidValue) cudaGetLastError();  // a driver from before pools
  if (known != cudaErrorInvalidValue) FASTRNN_CUDA_TRY(known);
  if (supported == 0) return nullptr;
  cudaMemPoolProps properties = {};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = device;
  cudaMemPool_t pool = nullptr;
  FASTRNN_CUDA_TRY(cudaMemPoolCreate(&pool, &properties));
  uint64_t kept = kKeptBytes;
  const cudaError_t status = cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &kept);
  if (status != cudaSuccess) cudaMemPoolDestroy(pool);
  FASTRNN_CUDA_TRY(status);
  return pool;
}

// The process's pool of a device. It is never destroyed: arrays may live until the process ends.
cudaMemPool_t PoolOf(int device) {
  static std::mutex mutex;
  static std::map<int, cudaMemPool_t> pools;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = pools.find(device);
  return found != pools.end() ? found->second : pools[device] = NewPool(device);
}

class CudaEvent final : public Event {
 public:
  CudaEvent(int device, void* stream);
  ~CudaEvent() override;
  void Delay(void* stream) const override;
  cudaEvent_t get() const { return event_; }

 private:
  int device_;
  cudaEvent_t event_;
};

class CudaMemory final : public DeviceMemory {
 public:
  CudaMemory(int device, size_t bytes, void* stream);
  ~CudaMemory() override;
  int device() const override { return device_; }
  void Publish(const std::shared_ptr<const Event>& ready) override;
  void KeepUntil(std::shared_ptr<const Event> end) override;
  void Delay(void* stream) const override;
  void DelayForWriting(void* stream) const override;

 private:
  int device_;
  void* stream_;
  bool pooled_ = true;
  std::shared_ptr<const Event> ready_;
  std::map<void*, std::shared_ptr<const Event>> ends_;  // the last of each stream
};

cudaEvent_t Get(const Event& event) { return static_cast<const CudaEvent&>(event).get(); }

}  // namespace

bool IsCapturing(int device, void* stream) {
  if (stream == nullptr) return false;  // The legacy default stream cannot be.
  const DeviceScope scope(device);
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  FASTRNN_CUDA_TRY(cudaStreamIsCapturing(AsStream(stream), &status));
  return status != cudaStreamCaptureStatusNone;
}

CudaEvent::CudaEvent(int device, void* stream) : Event(stream), device_(device) {
  const DeviceScope scope(device_);
  FASTRNN_CUDA_TRY(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming));
  const cudaError_t status = cudaEventRecord(event_, AsStream(stream));
  if (status != cudaSuccess) cudaEventDestroy(event_);
  FASTRNN_CUDA_TRY(status);
}

// Destructors here cannot report a failure. There are two. CUDA may have been shut down at the end
// of the process, which frees everything. And the legacy default stream cannot be used while a
// stream that waits for it is being captured; kernels.py tells callers not to do that.
CudaEvent::~CudaEvent() { cudaEventDestroy(event_); }

void CudaEvent::Delay(void* stream) const {
  const DeviceScope scope(device_);
  FASTRNN_CUDA_TRY(cudaStreamWaitEvent(AsStream(stream), event_, 0));
}

CudaMemory::CudaMemory(int device, size_t bytes, void* stream) : device_(device), stream_(stream) {
  const DeviceScope scope(device_);
  const cudaMemPool_t pool = PoolOf(device);
  const size_t size = std::max<size_t>(bytes, 1);
  pooled_ = pool != nullptr;
  if (pooled_) {
    FASTRNN_CUDA_TRY(cudaMallocFromPoolAsync(&data_, size, pool, AsStream(stream_)));
  } else {
    FASTRNN_CUDA_TRY(cudaMalloc(&data_, size));
  }
}

CudaMemory::~CudaMemory() {
  int previous = 0;
  if (cudaGetDevice(&previous) != cudaSuccess) return;
  cudaSetDevice(device_);
  for (const auto& [stream, end] : ends_) {
    if (stream != stream_) cudaStreamWaitEvent(AsStream(stream_), Get(*end), 0);
  }
  if (pooled_) {
    cudaFreeAsync(data_, AsStream(stream_));
  } else {
    cudaFree(data_);
  }
  cudaSetDevice(previous);
}

void CudaMemory::Publish(const std::shared_ptr<const Event>& ready) {
  stream_ = nullptr;
  ready_ = ready;
  KeepUntil(ready);
}

void CudaMemory::KeepUntil(std::shared_ptr<const Event> end) {
  void* const stream = end->stream();
  ends_[stream] = std::move(end);
}

void CudaMemory::Delay(void* stream) const {
  if (ready_ != nullptr && !IsCapturing(device_, stream)) ready_->Delay(stream);
}

void CudaMemory::DelayForWriting(void* stream) const {
  Delay(stream);
  if (IsCapturing(device_, stream)) return;
  for (const auto& [other, end] : ends_) {
    if (other != stream) end->Delay(stream);
  }
}

std::unique_ptr<Memory> MemoryBackend::Allocate(int device, size_t bytes, void* stream) const {
  return AllocateArray(device, bytes, stream);
}

bool MemoryBackend::IsCapturing(int device, void* stream) const {
  return cuda::IsCapturing(device, stream);
}

std::unique_ptr<DeviceMemory> MemoryBackend::AllocateArray(int device, size_t bytes,
                                                           void* stream) const {
  return std::make_unique<CudaMemory>(device, bytes, stream);
}

std::shared_ptr<const Event> MemoryBackend::Record(int device, void* stream) const {
  return std::make_shared<const CudaEvent>(device, stream);
}

PoolBytes MemoryBackend::PoolBytesOf(int device, bool set_back) const {
  const DeviceScope scope(device);
  const cudaMemPool_t pool = PoolOf(device);
  if (pool == nullptr || CUDART_VERSION < 11030) {
    throw LibraryError("the memory of arrays on device " + std::to_string(device) +
                           " is not known: it has no pools, or CUDA is older than 11.3",
                       __FILE__, __LINE__);
  }
  PoolBytes bytes = {};
#if CUDART_VERSION >= 11030
  uint64_t nothing = 0;
  if (set_back) {
    FASTRNN_CUDA_TRY(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrUsedMemHigh, &nothing));
  }
  FASTRNN_CUDA_TRY(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &bytes.now));
  FASTRNN_CUDA_TRY(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemHigh, &bytes.most));
#endif
  return bytes;
}

void MemoryBackend::FillWithZeros(int device, void* data, size_t bytes, void* stream) const {
  const DeviceScope scope(device);
  FASTRNN_CUDA_TRY(cudaMemsetAsync(data, 0, bytes, AsStream(stream)));
}

void MemoryBackend::CopyToDevice(const DeviceMemory& to, const void* from, size_t bytes) const {
  const DeviceScope scope(to.device());
  FASTRNN_CUDA_TRY(cudaMemcpy(to.data(), from, bytes, cudaMemcpyHostToDevice));
}

void MemoryBackend::CopyToHost(void* to, const DeviceMemory& from, size_t bytes) const {
  const DeviceScope scope(from.device());
  FASTRNN_CUDA_TRY(cudaMemcpy(to, from.data(), bytes, cudaMemcpyDeviceToHost));
}

}  // namespace cuda
}  // namespace fastrnn
