// The instances of the persistent kernels, each cell's in a file of its own.
#pragma once

#include "../cell/rnn.h"
#include "persistent_forward.cuh"
#include "plan.h"

namespace fastrnn {
namespace cuda {

template <class T>
using ForwardKernel = void (*)(PersistentForwardArgs<T>);

// Null where there is none for the plan's tiles.
template <class Step, class T>
ForwardKernel<T> FindForwardKernel(const PersistentPlan& plan, bool tf32);

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

#define FASTRNN_FORWARD_KERNELS(Step)                                                             \
  template <>                                                                                     \
  ForwardKernel<float> FindForwardKernel<Step, float>(const PersistentPlan& plan, bool tf32) {    \
    return tf32 ? ForwardKernelOf<Step, Tf32Math>(plan) : ForwardKernelOf<Step, FloatMath>(plan); \
  }                                                                                               \
  template <>                                                                                     \
  ForwardKernel<Half> FindForwardKernel<Step, Half>(const PersistentPlan& plan, bool) {           \
    return ForwardKernelOf<Step, HalfMath>(plan);                                                 \
  }                                                                                               \
  template <>                                                                                     \
  ForwardKernel<Bfloat16> FindForwardKernel<Step, Bfloat16>(const PersistentPlan& plan, bool) {   \
    return ForwardKernelOf<Step, Bfloat16Math>(plan);                                             \
  }

}  // namespace cuda
}  // namespace fastrnn
