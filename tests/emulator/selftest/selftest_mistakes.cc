// Kernels with one mistake each, which the emulator or a sanitizer has to find.
#include "selftest.h"

namespace selftest {
namespace {

using namespace fastrnn::cuda;  // NOLINT: the vocabulary under test

__global__ void SkippedBarrier() {
  if (threadIdx.x != 5) __syncthreads();
}

__global__ void TwoBarriers() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

__global__ void NobodySignals(unsigned* flag) {
  while (LoadAcquire(flag) == 0) {
  }
}

__global__ void LaneOutsideItsMask() { __syncwarp(0xfu); }

// All lanes of a warp meet in it, but it orders no memory.
FASTRNN_DEVICE void Multiply() {
  float d[4] = {};
  MmaTf32M16N8K8(d, {}, {}, d);
}

__global__ void TwoWarpFunctions() {
  if (threadIdx.x < 16) {
    Multiply();
  } else {
    __syncwarp();
  }
}

__global__ void GridBarrierOfNormalLaunch() { cooperative_groups::this_grid().sync(); }

__global__ void StaticOverrun(float* out, int n) {
  FASTRNN_SHARED(float, first, 32);
  FASTRNN_SHARED(float, second, 32);
  second[0] = 1.0f;
  first[n] = 1.0f;
  out[0] = second[0];
}

__global__ void CarvedOverrun(int n) {
  FASTRNN_DYNAMIC_SHARED(raw);
  SharedCarver carver(raw);
  float* first = carver.Take<float>(32);
  float* second = carver.Take<float>(32);
  second[0] = 1.0f;
  first[n] = 1.0f;
}

__global__ void GlobalOverrun(float* array, int n) { array[n] = 1.0f; }

__global__ void MissingBarrier(float* out) {
  FASTRNN_SHARED(float, box, 64);
  const unsigned t = threadIdx.x;
  box[t] = static_cast<float>(t);
  out[t] = box[63 - t];
}

__global__ void MissingWarpBarrier(float* out) {
  FASTRNN_SHARED(float, box, 32);
  const unsigned t = threadIdx.x;
  box[t] = static_cast<float>(t);
  Multiply();
  out[t] = box[31 - t];
}

__global__ void MissingFence(float* box, unsigned* ticket, float* out) {
  box[blockIdx.x] = 1.0f;
  if (atomicAdd(ticket, 1) + 1 == gridDim.x) {
    __threadfence();
    *out = box[0] + box[gridDim.x - 1];
  }
}

__global__ void MissingGridBarrier(float* values) {
  values[blockIdx.x] += 1.0f;
  __syncthreads();
  values[blockIdx.x + gridDim.x] = values[(blockIdx.x + 1) % gridDim.x];
}

__global__ void ReadBeforeAcquire(float* box, unsigned* flag, float* out) {
  if (blockIdx.x == 0) {
    box[0] = 1.0f;
    StoreRelease(flag, 1);
  } else {
    *out = box[0];
    while (LoadAcquire(flag) == 0) {
    }
  }
}

// The shared memory of a block of a cluster: four numbers, and a barrier of bytes.
struct Box {
  float* numbers;
  uint64_t* barrier;

  explicit Box(unsigned char* shared) {
    SharedCarver carver(shared);
    numbers = carver.Take<float>(4);
    barrier = carver.Take<uint64_t>(1);
  }
  void StoreTo(unsigned rank) const {
    StoreToCluster(numbers, rank, make_float4(1.0f, 1.0f, 1.0f, 1.0f), barrier);
  }
};

// Reads what the other block of the cluster stores into this one's memory, without waiting.
__global__ void MissingWaitForBytes(float* out) {
  FASTRNN_DYNAMIC_SHARED(shared);
  const Box box(shared);
  InitByteBarrier(box.barrier);
  ClusterBarrier();
  ExpectBytes(box.barrier, 16);
  box.StoreTo(1 - blockIdx.x);
  out[blockIdx.x] = box.numbers[0];
  WaitForBytes(box.barrier, 0);
}

__global__ void MoreBytesThanThereAre() {
  FASTRNN_DYNAMIC_SHARED(shared);
  const Box box(shared);
  InitByteBarrier(box.barrier);
  ClusterBarrier();
  ExpectBytes(box.barrier, 32);
  box.StoreTo(1 - blockIdx.x);
  WaitForBytes(box.barrier, 0);
}

__global__ void BarrierThatWasNotInitialised() {
  FASTRNN_DYNAMIC_SHARED(shared);
  ClusterBarrier();
  Box(shared).StoreTo(1 - blockIdx.x);
}

// The other one may be gone by then.
__global__ void EndedBlockOfACluster() {
  FASTRNN_DYNAMIC_SHARED(shared);
  ClusterBarrier();
  if (blockIdx.x == 0) return;
  for (int i = 0; i < 1000; ++i) __syncthreads();
  Box(shared).StoreTo(0);
}

__global__ void NotInSharedMemory(float* array) {
  FASTRNN_DYNAMIC_SHARED(shared);
  StoreToCluster(array, 0, make_float4(1.0f, 1.0f, 1.0f, 1.0f), Box(shared).barrier);
}

__global__ void BlockThatMayNotHaveStarted() {
  FASTRNN_DYNAMIC_SHARED(shared);
  Box(shared).StoreTo(1);
}

template <class Kernel, class... Arguments>
cudaError_t InCluster(Kernel kernel, Arguments... arguments) {
  return LaunchCooperative(kernel, 2, 2, 1, 256, nullptr, arguments...);
}

template <class Kernel, class... Arguments>
cudaError_t Together(Kernel kernel, int blocks, int threads, Arguments... arguments) {
  return LaunchCooperative(kernel, 1, blocks, threads, 0, nullptr, arguments...);
}

// Behind an array of 32, and before the next one.
constexpr int kPastFirst = 32 + 2;

alignas(16) float floats[256];
unsigned signals[4];

}  // namespace

std::vector<Case> MistakeCases() {
  return {
      {"skipped_barrier", Outcome::kRefuse, "deadlock",
       [] { return Launch(SkippedBarrier, 1, 64, 0, nullptr); }},
      {"two_barriers", Outcome::kRefuse, "divergent barrier",
       [] { return Launch(TwoBarriers, 1, 64, 0, nullptr); }},
      {"nobody_signals", Outcome::kRefuse, "livelock",
       [] { return Together(NobodySignals, 2, 32, signals); }},
      {"lane_outside_its_mask", Outcome::kRefuse, "a mask that leaves it out",
       [] { return Launch(LaneOutsideItsMask, 1, 32, 0, nullptr); }},
      {"two_warp_functions", Outcome::kRefuse, "divergent warp",
       [] { return Launch(TwoWarpFunctions, 1, 32, 0, nullptr); }},
      {"grid_barrier_of_normal_launch", Outcome::kRefuse, "not launched cooperatively",
       [] { return Launch(GridBarrierOfNormalLaunch, 1, 32, 0, nullptr); }},
      {"more_bytes_than_there_are", Outcome::kRefuse, "livelock",
       [] { return InCluster(MoreBytesThanThereAre); }},
      {"barrier_that_was_not_initialised", Outcome::kRefuse, "that was not initialised",
       [] { return InCluster(BarrierThatWasNotInitialised); }},
      {"ended_block_of_a_cluster", Outcome::kRefuse, "that has ended",
       [] { return InCluster(EndedBlockOfACluster); }},
      {"not_in_shared_memory", Outcome::kRefuse, "not in the block's dynamic shared memory",
       [] { return InCluster(NotInSharedMemory, floats); }},
      {"block_that_may_not_have_started", Outcome::kRefuse, "may not have started",
       [] { return InCluster(BlockThatMayNotHaveStarted); }},
      {"static_overrun", Outcome::kAsan, "",
       [] { return Launch(StaticOverrun, 1, 1, 0, nullptr, floats, kPastFirst); }},
      {"carved_overrun", Outcome::kAsan, "",
       [] {
         SharedCarver size(nullptr);
         size.Take<float>(32);
         size.Take<float>(32);
         return Launch(CarvedOverrun, 1, 1, size.bytes(), nullptr, kPastFirst);
       }},
      {"global_overrun", Outcome::kAsan, "",
       [] {
         std::vector<float> array(8);
         return Launch(GlobalOverrun, 1, 1, 0, nullptr, array.data(), 8);
       }},
      {"missing_barrier", Outcome::kTsan, "",
       [] { return Launch(MissingBarrier, 1, 64, 0, nullptr, floats); }},
      {"missing_warp_barrier", Outcome::kTsan, "",
       [] { return Launch(MissingWarpBarrier, 1, 32, 0, nullptr, floats); }},
      {"missing_fence", Outcome::kTsan, "",
       [] { return Launch(MissingFence, 4, 1, 0, nullptr, floats, signals, floats + 64); }},
      {"missing_grid_barrier", Outcome::kTsan, "",
       [] { return Together(MissingGridBarrier, 4, 1, floats); }},
      {"missing_wait_for_bytes", Outcome::kTsan, "",
       [] { return InCluster(MissingWaitForBytes, floats); }},
      {"read_before_acquire", Outcome::kTsan, "",
       [] { return Together(ReadBeforeAcquire, 2, 1, floats, signals, floats + 8); }},
  };
}

}  // namespace selftest
