// The instances of the persistent kernels, each cell's in a file of its own.
#pragma once

#include <cstddef>
#include <iterator>

#include "persistent_backward.cuh"
#include "persistent_forward.cuh"
#include "plan.h"

namespace fastrnn {
namespace cuda {

template <class T>
using ForwardKernel = void (*)(PersistentForwardArgs<T>);
template <class T>
using BackwardKernel = void (*)(PersistentBackwardArgs<T>);

// Null where there is none for the plan's tiles.
template <class Step, class T>
ForwardKernel<T> FindForwardKernel(const PersistentPlan& plan, bool tf32);
template <class Step, class T>
BackwardKernel<T> FindBackwardKernel(const PersistentPlan& plan, bool tf32);

template <class T>
ForwardKernel<T> FindForwardKernel(Mode mode, const PersistentPlan& plan, bool tf32) {
  switch (mode) {
    case Mode::kLstm:
      return FindForwardKernel<LstmStep, T>(plan, tf32);
    case Mode::kGru:
      return FindForwardKernel<GruStep, T>(plan, tf32);
    case Mode::kRnnTanh:
    case Mode::kRnnRelu:
      return FindForwardKernel<RnnStep, T>(plan, tf32);
  }
  return nullptr;
}
template <class T>
BackwardKernel<T> FindBackwardKernel(Mode mode, const PersistentPlan& plan, bool tf32) {
  switch (mode) {
    case Mode::kLstm:
      return FindBackwardKernel<LstmStep, T>(plan, tf32);
    case Mode::kGru:
      return FindBackwardKernel<GruStep, T>(plan, tf32);
    case Mode::kRnnTanh:
    case Mode::kRnnRelu:
      return FindBackwardKernel<RnnStep, T>(plan, tf32);
  }
  return nullptr;
}

// ---- for the files of the cells -----------------------------------------------------------------

template <class Step, class Math, int kRowTiles, int kMostBatchTiles, int kClusterBlocks>
ForwardKernel<typename Math::Value> ForwardKernelOf(int batch_tiles) {
  if constexpr (kClusterBlocks == 1) {
    if (batch_tiles == 1) return PersistentForwardKernel<Step, Math, kRowTiles, 1, 1>;
  }
  if (batch_tiles == 2) return PersistentForwardKernel<Step, Math, kRowTiles, 2, kClusterBlocks>;
  if constexpr (kMostBatchTiles == 4) {
    if (batch_tiles == 4) return PersistentForwardKernel<Step, Math, kRowTiles, 4, kClusterBlocks>;
  }
  return nullptr;
}

// The kernel where the plan has the kIndex-th tiles, and else that of a later index.
template <class Step, class Math, size_t kIndex = 0>
ForwardKernel<typename Math::Value> ForwardKernelOf(const PersistentPlan& plan) {
  constexpr const auto& kAll = Step::kGates == 1 ? kForwardTilesOfRnn : kForwardTiles;
  if constexpr (kIndex < std::size(kAll)) {
    constexpr int kRows = kAll[kIndex].row_tiles, kMost = kAll[kIndex].most_batch_tiles;
    if (plan.row_tiles != kRows) return ForwardKernelOf<Step, Math, kIndex + 1>(plan);
    return plan.cluster > 1 ? ForwardKernelOf<Step, Math, kRows, kMost, kCluster>(plan.batch_tiles)
                            : ForwardKernelOf<Step, Math, kRows, kMost, 1>(plan.batch_tiles);
  }
  return nullptr;
}

template <class Step, class Math, int kRowTiles, int kMostBatchTiles, int kSplit, bool kInCluster>
BackwardKernel<typename Math::Value> BackwardKernelOf(int batch_tiles) {
  if (batch_tiles == 1) {
    return PersistentBackwardKernel<Step, Math, kRowTiles, 1, kSplit, kInCluster>;
  }
  if (batch_tiles == 2) {
    return PersistentBackwardKernel<Step, Math, kRowTiles, 2, kSplit, kInCluster>;
  }
  if constexpr (kMostBatchTiles == 4) {
    if (batch_tiles == 4) {
      return PersistentBackwardKernel<Step, Math, kRowTiles, 4, kSplit, kInCluster>;
    }
  }
  return nullptr;
}

// The kernel where the plan has the kIndex-th tiles, and else that of a later index.
template <class Step, class Math, size_t kIndex = 0>
BackwardKernel<typename Math::Value> BackwardKernelOf(const PersistentPlan& plan) {
  constexpr size_t kCount =
      Step::kGates == 1 ? std::size(kBackwardTilesOfRnn) : std::size(kBackwardTiles);
  if constexpr (kIndex < kCount) {
    constexpr Tiles kTiles = (Step::kGates == 1 ? kBackwardTilesOfRnn : kBackwardTiles)[kIndex];
    constexpr int kRows = kTiles.row_tiles, kMost = kTiles.most_batch_tiles;
    constexpr int kSplit = kTiles.split;
    if (plan.row_tiles == kRows && plan.split == kSplit) {
      if constexpr (kSplit > 1) {
        if (plan.cluster > 1) {
          return BackwardKernelOf<Step, Math, kRows, kMost, kSplit, true>(plan.batch_tiles);
        }
      }
      return BackwardKernelOf<Step, Math, kRows, kMost, kSplit, false>(plan.batch_tiles);
    }
    return BackwardKernelOf<Step, Math, kIndex + 1>(plan);
  }
  return nullptr;
}

#define FASTRNN_PERSISTENT_KERNELS(Step)                            \
  FASTRNN_FIND(Step, Forward, float, Tf32Math, FloatMath)           \
  FASTRNN_FIND(Step, Forward, Half, HalfMath, HalfMath)             \
  FASTRNN_FIND(Step, Forward, Bfloat16, Bfloat16Math, Bfloat16Math) \
  FASTRNN_FIND(Step, Backward, float, Tf32Math, FloatMath)          \
  FASTRNN_FIND(Step, Backward, Half, HalfMath, HalfMath)            \
  FASTRNN_FIND(Step, Backward, Bfloat16, Bfloat16Math, Bfloat16Math)

// Math is the one where TF32 is allowed, Exact the other.
#define FASTRNN_FIND(Step, Pass, T, Math, Exact)                                        \
  template <>                                                                           \
  Pass##Kernel<T> Find##Pass##Kernel<Step, T>(const PersistentPlan& plan, bool tf32) {  \
    return tf32 ? Pass##KernelOf<Step, Math>(plan) : Pass##KernelOf<Step, Exact>(plan); \
  }

}  // namespace cuda
}  // namespace fastrnn
