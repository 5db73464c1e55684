// The part of the CUDA runtime that deals with memory, events and streams: of which there is one,
// and everything is done when the call returns.
#include <cuda_runtime_api.h>

#include <cstdlib>
#include <cstring>

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
  std::memcpy(destination, source, bytes);
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = nullptr;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }

cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }

cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
