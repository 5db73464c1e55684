// Launches of persistent kernels, forward or backward.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <tuple>

#include "../../error.h"
#include "../../layout.h"
#include "../plan.h"
#include "product.cuh"

namespace fastrnn {
namespace cuda {

// What the blocks of a launch exchange, with flags and exchanged numbers that begin as zeros, and
// the memory of the weights that they stream.
template <class T>
struct ExchangeBuffers {
  unsigned* flags;
  unsigned* sums_flags;    // if blocks share K
  T* exchanged = nullptr;  // if blocks read more than sums
  size_t zero_bytes;       // from flags on
  float* sums = nullptr;   // if blocks share K
  WeightQuad* streamed = nullptr;

  // `numbers` are exchanged for each row of the batch. The carver has not been used.
  ExchangeBuffers(const PersistentPlan& plan, int64_t numbers, Carver* carver) {
    const Instance& kernel = plan.kernel();
    constexpr int64_t kValues = kSliceBytes / static_cast<int64_t>(sizeof(T));
    const size_t groups = static_cast<size_t>(plan.groups) * static_cast<size_t>(plan.directions);
    const size_t blocks = groups * static_cast<size_t>(plan.blocks);
    flags = carver->Take<unsigned>(blocks);
    sums_flags = carver->Take<unsigned>(blocks);
    if (!plan.scatters()) {
      const int64_t part =
          ((numbers + kValues - 1) / kValues + plan.tile_parts() - 1) / plan.tile_parts();
      const int slices = static_cast<int>(part) * plan.tile_parts();
      const size_t values = groups * 2 * ExchangedValues(slices, kernel.batch_tiles, kValues);
      exchanged = carver->Take<T>(plan.tagged() ? values * sizeof(uint32_t) / sizeof(T) : values);
    }
    zero_bytes = carver->used();
    if (kernel.reduction != Reduction::kNone) {
      // A tile has as many sums as K has parts. If those are the blocks of the group, there are
      // also as many tiles.
      const size_t parts = plan.scatters() ? static_cast<size_t>(plan.blocks) : 1;
      sums = carver->Take<float>(2 * blocks * parts *
                                 static_cast<size_t>(kernel.batch_tiles * kTileBatch) *
                                 static_cast<size_t>(kernel.row_tiles * kTileRows));
    }
    if (plan.streamed_words > 0) streamed = carver->Take<WeightQuad>(blocks * plan.streamed_words);
  }
};

// The most steps of a launch. The driver of a GPU that also draws a screen ends launches that take
// seconds; at 50 us a step, which is slow, these take a fifth of a second. Emulated builds set it
// lower, so that small tests have several launches.
#if !defined(FASTRNN_CUDA_LAUNCH_STEPS)
#define FASTRNN_CUDA_LAUNCH_STEPS 4096
#endif
constexpr int64_t kLaunchSteps = FASTRNN_CUDA_LAUNCH_STEPS;
static_assert(kLaunchSteps < kMostTag, "a launch has more rounds than tags");

// How many blocks of the kernel the device, which is current, holds at once. Asked once: the driver
// takes a while, and every call must get the same answer. Asking also allows the kernel its shared
// memory, in the device's primary context; a program that resets the device loses that.
template <class Args>
int ResidentBlocks(int device, void (*kernel)(Args), const PersistentPlan& plan) {
  using Question = std::tuple<int, uintptr_t, size_t, int>;
  static std::mutex mutex;
  static std::map<Question, int> known;
  const Question question(device, reinterpret_cast<uintptr_t>(kernel), plan.shared_bytes,
                          plan.cluster());
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = known.find(question);
  if (found != known.end()) return found->second;
  int blocks = 0;
  FASTRNN_CUDA_TRY(MaxResidentBlocks(kernel, kProductThreads, plan.shared_bytes, &blocks,
                                     static_cast<unsigned>(plan.cluster())));
  return known[question] = blocks;
}

// Whether a launch was refused because the device has no room for all blocks at once or, in
// clusters, because it cannot place the clusters.
inline bool IsRefusal(cudaError_t status, const PersistentPlan& plan) {
  if (status == cudaErrorCooperativeLaunchTooLarge) return true;
#if CUDART_VERSION >= 11080
  if (status == cudaErrorInvalidClusterSize) return true;
#endif
  return plan.cluster() > 1 &&
         (status == cudaErrorLaunchOutOfResources || status == cudaErrorNotSupported);
}

// Launches for all rows of the batch, one launch after the other, and returns for how many rows
// that succeeded: fewer if the device refuses a launch. The remaining rows are untouched, since
// rows are independent of each other.
template <class Args, class T>
int64_t LaunchForRows(int64_t rows, void (*kernel)(Args), const PersistentPlan& plan,
                      const ExchangeBuffers<T>& exchange, Args args, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(plan.blocks), static_cast<unsigned>(plan.groups),
                  static_cast<unsigned>(plan.directions));
  args.flags = exchange.flags;
  args.exchanged = exchange.exchanged;
  args.shared_slices = plan.shared_slices;
  args.streamed = exchange.streamed;
  for (int launch = 0; launch < plan.launches; ++launch) {
    args.first_row = launch * plan.groups * plan.kernel().batch_tiles * kTileBatch;
    FASTRNN_CUDA_TRY(cudaMemsetAsync(exchange.flags, 0, exchange.zero_bytes, stream));
    const cudaError_t status =
        LaunchCooperative(kernel, static_cast<unsigned>(plan.cluster()), grid, kProductThreads,
                          plan.shared_bytes, stream, args);
    if (IsRefusal(status, plan)) {
      cudaGetLastError();  // Otherwise the next call would report it.
      return args.first_row;
    }
    FASTRNN_CUDA_TRY(status);
  }
  return rows;
}

// Throws if persistent kernels were asked for, which could not be launched.
inline void ExpectChoiceIsFree(const LayerDesc& desc, const PersistentPlan& plan) {
  FASTRNN_EXPECTS(desc.algorithm.kind != Algorithm::Kind::kPersistent,
                  "algorithm is persistent, but the device has no room for " +
                      std::to_string(plan.grid_blocks()) + " blocks at once");
}

}  // namespace cuda
}  // namespace fastrnn
