// Launches of persistent kernels, forward or backward.
#pragma once

#include "../error.h"
#include "../layout.h"
#include "plan.h"
#include "product.cuh"

namespace fastrnn {
namespace cuda {

// What the blocks of a launch exchange; it finds flags and exchanged numbers zero.
template <class T>
struct ExchangeBuffers {
  unsigned* flags;
  unsigned* sums_flags;  // where K is split
  T* exchanged;
  size_t zero_bytes;      // from flags on
  float* sums = nullptr;  // where K is split

  // `numbers` are exchanged for each row of the batch. This has to be the first that is carved.
  ExchangeBuffers(const PersistentPlan& plan, int64_t numbers, Carver* carver) {
    constexpr int64_t kValues = kChunkBytesOfK / static_cast<int64_t>(sizeof(T));
    const int64_t part = ((numbers + kValues - 1) / kValues + plan.split - 1) / plan.split;
    const size_t groups = static_cast<size_t>(plan.groups) * static_cast<size_t>(plan.directions);
    const size_t blocks = groups * static_cast<size_t>(plan.blocks);
    const int chunks = static_cast<int>(part) * plan.split;
    flags = carver->Take<unsigned>(blocks);
    sums_flags = carver->Take<unsigned>(blocks);
    exchanged = carver->Take<T>(groups * 2 * ExchangedValues(chunks, plan.batch_tiles, kValues));
    zero_bytes = carver->used();
    if (plan.split > 1) {
      sums = carver->Take<float>(2 * blocks * static_cast<size_t>(plan.batch_tiles * kTileBatch) *
                                 static_cast<size_t>(plan.row_tiles * kTileRows));
    }
  }
};

// Whether the current device could hold all blocks at once if nothing else ran.
template <class Args>
bool Fits(void (*kernel)(Args), const PersistentPlan& plan) {
  int resident = 0;
  FASTRNN_CUDA_TRY(MaxResidentBlocks(kernel, kProductThreads, plan.shared_bytes, &resident,
                                     static_cast<unsigned>(plan.cluster)));
  return static_cast<int64_t>(plan.blocks) * plan.groups * plan.directions <= resident;
}

// Launches for all rows of the batch, one after the other. False, and nothing is done, where the
// device has no room for the blocks after all.
template <class Args, class T>
bool LaunchChunk(void (*kernel)(Args), const PersistentPlan& plan,
                 const ExchangeBuffers<T>& exchange, Args args, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(plan.blocks), static_cast<unsigned>(plan.groups),
                  static_cast<unsigned>(plan.directions));
  for (int launch = 0; launch < plan.launches; ++launch) {
    args.first_row = launch * plan.groups * plan.batch_tiles * kTileBatch;
    FASTRNN_CUDA_TRY(cudaMemsetAsync(exchange.flags, 0, exchange.zero_bytes, stream));
    const cudaError_t status = LaunchClusters(kernel, static_cast<unsigned>(plan.cluster), grid,
                                              kProductThreads, plan.shared_bytes, stream, args);
    if (status == cudaErrorCooperativeLaunchTooLarge && launch == 0) {
      cudaGetLastError();  // It would otherwise be the next call's.
      return false;
    }
    FASTRNN_CUDA_TRY(status);
  }
  return true;
}

}  // namespace cuda
}  // namespace fastrnn
