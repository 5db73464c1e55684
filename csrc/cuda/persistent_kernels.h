// The instances of the persistent kernels, each cell's in a file of its own.
#pragma once

#include <cstddef>

#include "persistent_backward.cuh"
#include "persistent_forward.cuh"
#include "persistent_scatter.cuh"
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
      return FindForwardKernel<LstmCell, T>(plan, tf32);
    case Mode::kGru:
      return FindForwardKernel<GruCell, T>(plan, tf32);
    case Mode::kRnnTanh:
    case Mode::kRnnRelu:
      return FindForwardKernel<RnnCell, T>(plan, tf32);
  }
  return nullptr;
}
template <class T>
BackwardKernel<T> FindBackwardKernel(Mode mode, const PersistentPlan& plan, bool tf32) {
  switch (mode) {
    case Mode::kLstm:
      return FindBackwardKernel<LstmCell, T>(plan, tf32);
    case Mode::kGru:
      return FindBackwardKernel<GruCell, T>(plan, tf32);
    case Mode::kRnnTanh:
    case Mode::kRnnRelu:
      return FindBackwardKernel<RnnCell, T>(plan, tf32);
  }
  return nullptr;
}

// ---- for the files of the cells -----------------------------------------------------------------
//
// Each function decides one more number of the plan; in the end all are constants.

template <class Step, class Math>
struct ForwardInstances {
  using Kernel = ForwardKernel<typename Math::Value>;
  static constexpr TileTable kTable = TilesOf(Pass::kForward, Step::kGates == 1);

  template <size_t kIndex, int kBatchTiles, bool kStreams>
  static Kernel Find(const PersistentPlan&) {
    return PersistentForwardKernel<Step, Math, kTable.tiles[kIndex].row_tiles, kBatchTiles,
                                   kStreams>;
  }
};

template <class Step, class Math>
struct BackwardInstances {
  using Kernel = BackwardKernel<typename Math::Value>;
  static constexpr TileTable kTable = TilesOf(Pass::kBackward, Step::kGates == 1);

  template <size_t kIndex, int kBatchTiles, bool kStreams>
  static Kernel Find(const PersistentPlan& plan) {
    constexpr Tiles kTiles = kTable.tiles[kIndex];
    if constexpr (kTiles.split == kEveryBlock) {
      return PersistentScatterKernel<Step, Math, kBatchTiles>;
    } else {
      if constexpr (HasClusterForm(kTiles.split)) {
        if (plan.cluster > 1) {
          return PersistentBackwardKernel<Step, Math, kTiles.row_tiles, kBatchTiles, kTiles.split,
                                          true, kStreams>;
        }
      }
      return PersistentBackwardKernel<Step, Math, kTiles.row_tiles, kBatchTiles, kTiles.split,
                                      false, kStreams>;
    }
  }
};

template <class Instances, size_t kIndex, int kBatchTiles>
typename Instances::Kernel InstanceOf(const PersistentPlan& plan) {
  constexpr Tiles kTiles = Instances::kTable.tiles[kIndex];
  if (plan.streams()) {
    if constexpr (kBatchTiles <= kTiles.most_streamed) {
      return Instances::template Find<kIndex, kBatchTiles, true>(plan);
    }
  } else if constexpr (kBatchTiles <= kTiles.most_batch_tiles) {
    return Instances::template Find<kIndex, kBatchTiles, false>(plan);
  }
  return nullptr;
}

// The kernel where the plan has the kIndex-th tiles of the table, and else that of a later index.
template <class Instances, size_t kIndex = 0>
typename Instances::Kernel InstanceOf(const PersistentPlan& plan) {
  if constexpr (kIndex < Instances::kTable.count) {
    constexpr Tiles kTiles = Instances::kTable.tiles[kIndex];
    if (plan.row_tiles != kTiles.row_tiles || plan.split != kTiles.split) {
      return InstanceOf<Instances, kIndex + 1>(plan);
    }
    if (plan.batch_tiles == 1) return InstanceOf<Instances, kIndex, 1>(plan);
    if (plan.batch_tiles == 2) return InstanceOf<Instances, kIndex, 2>(plan);
    if (plan.batch_tiles == 4) return InstanceOf<Instances, kIndex, 4>(plan);
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
#define FASTRNN_FIND(Step, Pass, T, Math, Exact)                                       \
  template <>                                                                          \
  Pass##Kernel<T> Find##Pass##Kernel<Step, T>(const PersistentPlan& plan, bool tf32) { \
    return tf32 ? InstanceOf<Pass##Instances<Step, Math>>(plan)                        \
                : InstanceOf<Pass##Instances<Step, Exact>>(plan);                      \
  }

}  // namespace cuda
}  // namespace fastrnn
