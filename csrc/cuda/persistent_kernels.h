// The instances of the persistent kernels, each cell's in a file of its own.
#pragma once

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

template <class Step, class Math, int kRowTiles>
ForwardKernel<typename Math::Value> ForwardKernelOf(int batch_tiles) {
  switch (batch_tiles) {
    case 1:
      return PersistentForwardKernel<Step, Math, kRowTiles, 1>;
    case 2:
      return PersistentForwardKernel<Step, Math, kRowTiles, 2>;
    case 4:
      return PersistentForwardKernel<Step, Math, kRowTiles, 4>;
    default:
      return nullptr;
  }
}

template <class Step, class Math>
ForwardKernel<typename Math::Value> ForwardKernelOf(const PersistentPlan& plan) {
  constexpr int kSmall = SmallRowTiles(Step::kGates);
  if (plan.row_tiles == kSmall) return ForwardKernelOf<Step, Math, kSmall>(plan.batch_tiles);
  if (plan.row_tiles == 2 * kSmall) {
    return ForwardKernelOf<Step, Math, 2 * kSmall>(plan.batch_tiles);
  }
  return nullptr;
}

template <class Step, class Math, int kRowTiles, int kSplit, bool kCluster = false>
BackwardKernel<typename Math::Value> BackwardKernelOf(int batch_tiles) {
  switch (batch_tiles) {
    case 1:
      return PersistentBackwardKernel<Step, Math, kRowTiles, 1, kSplit, kCluster>;
    case 2:
      return PersistentBackwardKernel<Step, Math, kRowTiles, 2, kSplit, kCluster>;
    case 4:
      return PersistentBackwardKernel<Step, Math, kRowTiles, 4, kSplit, kCluster>;
    default:
      return nullptr;
  }
}

template <class Step, class Math, int kRowTiles, int kSplit>
BackwardKernel<typename Math::Value> InCluster(const PersistentPlan& plan) {
  return plan.cluster ? BackwardKernelOf<Step, Math, kRowTiles, kSplit, true>(plan.batch_tiles)
                      : BackwardKernelOf<Step, Math, kRowTiles, kSplit>(plan.batch_tiles);
}

template <class Step, class Math>
BackwardKernel<typename Math::Value> BackwardKernelOf(const PersistentPlan& plan) {
  const auto is = [&plan](BackwardTiles tiles) {
    return plan.row_tiles == tiles.row_tiles && plan.split == tiles.split;
  };
  if constexpr (Step::kGates == 1) {
    if (is({1, 1})) return BackwardKernelOf<Step, Math, 1, 1>(plan.batch_tiles);
    if (is({2, 1})) return BackwardKernelOf<Step, Math, 2, 1>(plan.batch_tiles);
  } else {
    if (is({1, 1})) return BackwardKernelOf<Step, Math, 1, 1>(plan.batch_tiles);
    if (is({2, 4})) return InCluster<Step, Math, 2, 4>(plan);
    if (is({4, 4})) return InCluster<Step, Math, 4, 4>(plan);
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
