// How long one step of a persistent kernel's exchange takes at least: every block announces that it
// is done, and waits until all others have. Without any data or work, one block a multiprocessor.
#include "../csrc/cuda/device.cuh"

namespace {

using fastrnn::cuda::LoadAcquire;
using fastrnn::cuda::StoreRelease;

constexpr int kThreads = 256;

__global__ void Exchange(unsigned* flags, unsigned steps) {
  for (unsigned step = 1; step <= steps; ++step) {
    if (threadIdx.x == 0) StoreRelease(flags + blockIdx.x, step);
    for (unsigned other = threadIdx.x; other < gridDim.x; other += blockDim.x) {
      while (LoadAcquire(flags + other) < step) {
      }
    }
    __syncthreads();
  }
}

}  // namespace

// Enqueues `steps` exchanges between `blocks` blocks; flags has a zero for each block. Returns the
// status of CUDA, 0 if all is well.
extern "C" int BenchExchange(unsigned* flags, int blocks, unsigned steps, void* stream) {
  return static_cast<int>(fastrnn::cuda::LaunchCooperative(
      Exchange, dim3(blocks), dim3(kThreads), 0, static_cast<cudaStream_t>(stream), flags, steps));
}
