// Finds a plan's persistent kernel. Kernels are compiled cell by cell.
#pragma once

#include "../plan.h"
#include "persistent_backward.cuh"
#include "persistent_forward.cuh"

namespace fastrnn {
namespace cuda {

template <class T>
using ForwardKernel = void (*)(PersistentForwardArgs<T>);
template <class T>
using BackwardKernel = void (*)(PersistentBackwardArgs<T>);

// The kernels of a cell and type, defined in persistent_instances.cuh. tf32: as for the plan.
template <class Step, class T>
struct Kernels {
  static ForwardKernel<T> Forward(const PersistentPlan& plan, bool tf32);
  static BackwardKernel<T> Backward(const PersistentPlan& plan, bool tf32);
};

template <class T>
ForwardKernel<T> FindForwardKernel(Mode mode, const PersistentPlan& plan, bool tf32) {
  return ForCell(mode, [&](auto cell) { return Kernels<decltype(cell), T>::Forward(plan, tf32); });
}
template <class T>
BackwardKernel<T> FindBackwardKernel(Mode mode, const PersistentPlan& plan, bool tf32) {
  return ForCell(mode, [&](auto cell) { return Kernels<decltype(cell), T>::Backward(plan, tf32); });
}

}  // namespace cuda
}  // namespace fastrnn
