// Runs CUDA kernels on the CPU, for tests: every CUDA thread is a fiber, and all of them share one
// OS thread, so that a run is the same every time for a given schedule. This file is what the rest
// of the emulator and the device vocabulary are written with; cuda_emulator.h is what to include.
//
// The order in which threads run is FASTRNN_EMULATOR_SCHEDULE, read at every launch:
//   fifo           the longest waiting thread first (default); hides some missing barriers
//   lifo           the latest first: a block runs as far as it can before the next one starts
//   random:SEED    any order, and threads also give way at atomics and signals
//
// Found in every build: deadlock, livelock, barriers and warp functions that threads reach at
// different places or with a wrong mask, misaligned copies, shared memory read before it was
// written (it is filled with NaN). With AddressSanitizer: overruns, also from one array in shared
// memory into the next. With ThreadSanitizer: races, that is any missing barrier, fence, release or
// acquire. Nothing here knows about speed, caches or instruction-level undefined behaviour.
#pragma once

#include <cuda_runtime_api.h>
#include <vector_functions.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <tuple>
#include <utility>

inline thread_local uint3 threadIdx, blockIdx;
inline thread_local dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace emulator {

constexpr unsigned kFullWarp = 0xffffffffu;

// Where in the source a thread waits; messages name it.
struct Site {
  const char* what;
  const char* file;
  int line;
};

// A GPU like an A100, with fewer multiprocessors, but with clusters.
struct DeviceLimits {
  int multiprocessors = 40;
  int threads_per_block = 1024;
  int threads_per_multiprocessor = 2048;
  int blocks_per_multiprocessor = 32;
  size_t shared_bytes_per_block = 163 << 10;
  size_t shared_bytes_per_multiprocessor = 164 << 10;
  int l2_bytes = 40 << 20;
  size_t shared_bytes_reserved = 1 << 10;  // taken by the system from each block's share
};
constexpr DeviceLimits kLimits;

// 10 * major + minor, also of what kernels are compiled for.
#if defined(FASTRNN_ARCH) && FASTRNN_ARCH < 800
constexpr int kDefaultComputeCapability = FASTRNN_ARCH / 10;
#else
constexpr int kDefaultComputeCapability = 90;
#endif

// How many blocks fit on one multiprocessor; 0: not even one.
int BlocksPerMultiprocessor(int threads, size_t shared_bytes);
// Allows the kernel more than 48 KiB of dynamic shared memory on the current device; whether it may
// have so much.
void AllowShared(const void* kernel);
bool AllowsShared(const void* kernel, size_t bytes);
// How many the device holds at once, in whole clusters.
int ResidentBlocks(int threads, size_t shared_bytes, unsigned cluster);

// ---------------------------------------------------------------------------------------------
// launches

struct LaunchConfig {
  dim3 grid, block;
  size_t shared_bytes;
  bool cooperative;
  unsigned cluster = 1;  // blocks of a cluster, neighbours along x
  cudaStream_t stream = nullptr;
};

// Runs the body for every CUDA thread of the grid: at once, or where the stream is being captured
// when the graph runs. What went wrong stands in LastFailure.
cudaError_t LaunchBody(const LaunchConfig& config, std::function<void()> body);

// The report of this OS thread's last cudaErrorLaunchFailure.
const std::string& LastFailure();

// What the CUDA runtime keeps for each thread until somebody asks, and what it answers.
cudaError_t NoteError(cudaError_t error);
// What a test has asked this launch to end with.
cudaError_t StatusOfLaunch();
// What a test has left of so many blocks that the device could hold at once.
int LimitedBlocks(int blocks, unsigned cluster);

template <class... Parameters, class... Arguments>
cudaError_t Launch(const LaunchConfig& config, void (*kernel)(Parameters...),
                   Arguments&&... arguments) {
  const auto values =
      std::make_shared<std::tuple<Parameters...>>(std::forward<Arguments>(arguments)...);
  return LaunchBody(config, [kernel, values] { std::apply(kernel, *values); });
}

// ---------------------------------------------------------------------------------------------
// What a CUDA thread may do. These are called on its fiber only.

// Whether the primitive at this place is the mutant of this run: mutant.cc. All that orders memory
// asks, the functions below among it.
bool IsLeftOut(Site site);

// What can be wrong with every kernel, for tests of what is to notice it: the exchanged values that
// a launch loads are always the first ones; the rows of a product's tile of 16 are exchanged by
// halves, and so may be gates.
enum Fault : int { kNoFault, kStaleLoads, kExchangedRows };
bool IsPlanted(Fault fault);
void BeginLoads();  // of a launch of this thread
uint4 PerhapsStale(const void* p, uint4 value);

// Waits for all threads of the block.
void WaitAtBarrier(Site site);
void WaitForGrid(Site site);
void WaitForCluster(Site site);

// Called once the whole mask has arrived; data[lane] is what that lane passed, null outside mask.
using WarpFunction = void (*)(void* const* data, unsigned mask);

// Waits for the lanes of mask; the last one has `function` run for all. Lanes see no memory of each
// other but through it: only WaitForWarp orders memory.
void ExchangeInWarp(unsigned mask, void* data, WarpFunction function, Site site);
void WaitForWarp(unsigned mask, Site site);

// Lets the others run: for a thread that polls. A grid in which all threads only poll is stopped.
void Poll(Site site);
// Lets the others run, sometimes, and only in a random schedule.
void PerhapsYield(Site site);
// Counts as progress, which keeps threads that poll from being called stuck.
void NoteProgress();

// Stops the launch with an error.
void Fail(const char* what, Site site);

// The block's static array with this key, made at the first call.
void* StaticShared(const void* key, size_t bytes);
unsigned char* DynamicShared();
// The address in the dynamic shared memory of a block of the cluster that `own` is in this block's.
void* ClusterShared(void* own, unsigned rank, Site site);
// A fence makes the atomic before it an acquire and the atomic after it a release.
void Fence(Site site);
// To be called before an atomic on `address`; tells whether a fence made it a release.
bool BeforeAtomic(void* address, Site site);

}  // namespace emulator
