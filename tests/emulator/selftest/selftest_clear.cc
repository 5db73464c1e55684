// Correct kernels, one or two for each part of the vocabulary.
#include <cmath>
#include <numeric>

#include "selftest.h"

namespace selftest {
namespace {

using namespace fastrnn::cuda;  // NOLINT: the vocabulary under test

// Sums over shared arrays, in warps and in a block; the last block adds up the others' results.
__global__ void SumKernel(const float* x, int n, float* partial, unsigned* ticket, float* sum) {
  FASTRNN_SHARED(float, lanes, 1024);
  FASTRNN_SHARED(float, warps, kWarp);
  FASTRNN_SHARED(bool, last, 1);
  const int t = static_cast<int>(threadIdx.x);
  const int threads = static_cast<int>(blockDim.x), blocks = static_cast<int>(gridDim.x);
  lanes[t] = 0.0f;
  for (int i = static_cast<int>(blockIdx.x) * threads + t; i < n; i += blocks * threads) {
    lanes[t] += x[i];
  }
  __syncwarp();
  if (t % kWarp == 0) {
    warps[t / kWarp] = 0.0f;
    for (int lane = t; lane < t + kWarp; ++lane) warps[t / kWarp] += lanes[lane];
  }
  __syncthreads();
  if (t == 0) {
    float total = 0.0f;
    for (int w = 0; w < threads / kWarp; ++w) total += warps[w];
    partial[blockIdx.x] = total;
    __threadfence();
    last[0] = atomicAdd(ticket, 1) == gridDim.x - 1;
    __threadfence();
  }
  __syncthreads();
  if (last[0] && t == threads - 1) {
    *sum = 0.0f;
    for (int b = 0; b < blocks; ++b) *sum += partial[b];
  }
}

cudaError_t Sum() {
  std::vector<float> x(5000);
  std::iota(x.begin(), x.end(), -100.0f);
  float partial[7], sum;
  unsigned ticket = 0;
  const cudaError_t status =
      Launch(SumKernel, 7, 128, 0, nullptr, x.data(), 5000, partial, &ticket, &sum);
  Expect(sum == 11997500.0f, "the sum is that of an arithmetic series");
  return status;
}

__global__ void SharedIsNanKernel(float* out) {
  FASTRNN_SHARED(float, fixed, 4);
  FASTRNN_DYNAMIC_SHARED(raw);
  SharedCarver carver(raw);
  carver.Take<float>(3);
  const float* second = carver.Take<float>(5);
  out[0] = fixed[3];
  out[1] = second[4];
}

cudaError_t SharedIsNan() {
  SharedCarver size(nullptr);
  size.Take<float>(3);
  size.Take<float>(5);
  float out[2];
  const cudaError_t status = Launch(SharedIsNanKernel, 1, 1, size.bytes(), nullptr, out);
  Expect(std::isnan(out[0]) && std::isnan(out[1]), "shared memory starts as NaN");
  return status;
}

// Every block adds one to what its neighbour wrote in the round before.
__global__ void RingKernel(int* values, int rounds) {
  const unsigned blocks = gridDim.x;
  for (int round = 0; round < rounds; ++round) {
    const int* read = values + round % 2 * blocks;
    int* written = values + (round + 1) % 2 * blocks;
    if (threadIdx.x == 3) written[blockIdx.x] = read[(blockIdx.x + 1) % blocks] + 1;
    cooperative_groups::this_grid().sync();
  }
}

cudaError_t Ring() {
  int values[2 * 6] = {};
  const cudaError_t status = LaunchCooperative(RingKernel, 1, 6, 64, 0, nullptr, values, 10);
  for (int b = 0; b < 6; ++b) Expect(values[b] == 10, "no block is a round ahead or behind");
  return status;
}

__global__ void MessageKernel(float* box, unsigned* flag, float* out) {
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    box[0] = 42.0f;
    StoreRelease(flag, 7);
  }
  if (blockIdx.x == 1 && threadIdx.x == 0) {
    while (LoadAcquire(flag) != 7) {
    }
    *out = box[0];
  }
}

cudaError_t Message() {
  float box = 0.0f, out = 0.0f;
  unsigned flag = 0;
  const cudaError_t status =
      LaunchCooperative(MessageKernel, 1, 2, 32, 0, nullptr, &box, &flag, &out);
  Expect(out == 42.0f, "what was written before the release is read after the acquire");
  return status;
}

// Every block of a cluster stores into the shared memory of the next one, round by round.
__global__ void ClusterKernel(float* out, unsigned cluster, int rounds) {
  FASTRNN_DYNAMIC_SHARED(shared);
  SharedCarver carver(shared);
  const unsigned rank = blockIdx.x % cluster, t = threadIdx.x, threads = blockDim.x;
  float* slots = carver.Take<float>(2 * 4 * threads);
  uint64_t* barriers = carver.Take<uint64_t>(2);
  float value = static_cast<float>(blockIdx.x);
  if (t == 0) {
    InitByteBarrier(barriers);
    InitByteBarrier(barriers + 1);
  }
  ClusterBarrier();
  for (int round = 0; round < rounds; ++round) {
    float* slot = slots + round % 2 * 4 * threads;
    uint64_t* barrier = barriers + round % 2;
    if (t == 0) ExpectBytes(barrier, 16 * threads);
    StoreToCluster(slot + 4 * t, (rank + 1) % cluster, make_float4(0.0f, 0.0f, 0.0f, value + 1.0f),
                   barrier);
    WaitForBytes(barrier, static_cast<unsigned>(round / 2 % 2));
    value = slot[4 * (threads - 1 - t) + 3];
    ClusterBarrier();
  }
  out[blockIdx.x * threads + t] = value;
}

cudaError_t Clusters() {
  std::vector<float> out(6 * 32);
  const cudaError_t status =
      LaunchCooperative(ClusterKernel, 3, 6, 32, 2048, nullptr, out.data(), 3u, 6);
  for (int b = 0; b < 6; ++b) {
    Expect(out[b * 32] == static_cast<float>(b + 6),
           "a block's number comes back after two turns, and only to it");
  }
  Expect(LaunchCooperative(ClusterKernel, 4, 6, 32, 2048, nullptr, out.data(), 4u, 1) ==
             cudaErrorInvalidClusterSize,
         "a grid must be whole clusters");
  cudaGetLastError();
  return status;
}

__global__ void IndexKernel(unsigned* out) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] += block + thread;
}

cudaError_t Indices() {
  constexpr unsigned kThreads = 3 * 5 * 2, kBlocks = 4 * 3 * 2;
  std::vector<unsigned> out(kThreads * kBlocks, 0);
  const cudaError_t status =
      Launch(IndexKernel, dim3(4, 3, 2), dim3(3, 5, 2), 0, nullptr, out.data());
  for (unsigned i = 0; i < out.size(); ++i) {
    Expect(out[i] == i / kThreads + i % kThreads, "every thread runs once, with its own indices");
  }
  return status;
}

cudaError_t Limits() {
  unsigned out[1];
  Expect(Launch(IndexKernel, 1, 2048, 0, nullptr, out) != cudaSuccess, "2048 threads are too many");
  Expect(Launch(IndexKernel, 1, 32, 200 << 10, nullptr, out) != cudaSuccess,
         "200 KiB of shared memory are too many");
  int blocks = 0;
  Expect(MaxResidentBlocks(IndexKernel, 1024, 0, &blocks) == cudaSuccess && blocks == 80,
         "two blocks of 1024 threads fit on each of 40 multiprocessors");
  Expect(LaunchCooperative(IndexKernel, 1, 81, 1024, 0, nullptr, out) ==
             cudaErrorCooperativeLaunchTooLarge,
         "a cooperative grid must fit");
  return cudaSuccess;
}

}  // namespace

std::vector<Case> ClearCases() {
  return {
      {"sum", Outcome::kPass, "", Sum},
      {"shared_is_nan", Outcome::kPass, "", SharedIsNan},
      {"ring", Outcome::kPass, "", Ring},
      {"message", Outcome::kPass, "", Message},
      {"clusters", Outcome::kPass, "", Clusters},
      {"indices", Outcome::kPass, "", Indices},
      {"limits", Outcome::kPass, "", Limits},
  };
}

}  // namespace selftest
