// The kernels of kInstances, which a file for each cell compiles.
#pragma once

#include <cstddef>
#include <iterator>
#include <type_traits>
#include <utility>

#include "persistent_kernels.h"
#include "persistent_scatter.cuh"

namespace fastrnn {
namespace cuda {

template <class Step, class Math>
constexpr bool Serves(const Instance& instance, Pass pass) {
  constexpr Maths kMath = std::is_same<Math, Tf32Math>::value ? kTf32
                          : Math::kTensorCores                ? k16Bit
                                                              : kIeee;
  return instance.Serves(pass, Step::kGates > 1, kMath);
}

// Null if the instance does not serve this pass, cell and math: no plan uses it.
template <class Step, class Math, size_t kIndex>
ForwardKernel<typename Math::Value> ForwardInstance() {
  constexpr Instance kInstance = kInstances[kIndex];
  if constexpr (Serves<Step, Math>(kInstance, Pass::kForward)) {
    return PersistentForwardKernel<Step, Math, kInstance.row_tiles, kInstance.batch_tiles,
                                   kInstance.streams, kInstance.signal>;
  } else {
    return nullptr;
  }
}
template <class Step, class Math, size_t kIndex>
BackwardKernel<typename Math::Value> BackwardInstance() {
  constexpr Instance kInstance = kInstances[kIndex];
  if constexpr (!Serves<Step, Math>(kInstance, Pass::kBackward)) {
    return nullptr;
  } else if constexpr (kInstance.reduction == Reduction::kScatter) {
    return PersistentScatterKernel<Step, Math, kInstance.batch_tiles>;
  } else {
    return PersistentBackwardKernel<Step, Math, kInstance.row_tiles, kInstance.batch_tiles,
                                    kInstance.reduction, kInstance.streams>;
  }
}

template <class Step, class Math, size_t... kIndex>
ForwardKernel<typename Math::Value> ForwardOf(const PersistentPlan& plan,
                                              std::index_sequence<kIndex...>) {
  static const ForwardKernel<typename Math::Value> kernels[] = {
      ForwardInstance<Step, Math, kIndex>()...};
  return kernels[plan.instance];
}
template <class Step, class Math, size_t... kIndex>
BackwardKernel<typename Math::Value> BackwardOf(const PersistentPlan& plan,
                                                std::index_sequence<kIndex...>) {
  static const BackwardKernel<typename Math::Value> kernels[] = {
      BackwardInstance<Step, Math, kIndex>()...};
  return kernels[plan.instance];
}

// Calls body with the math of the type.
template <class T, class Body>
auto WithMath(bool tf32, const Body& body) {
  if constexpr (std::is_same<T, Half>::value) {
    return body(HalfMath());
  } else if constexpr (std::is_same<T, Bfloat16>::value) {
    return body(Bfloat16Math());
  } else {
    return tf32 ? body(Tf32Math()) : body(FloatMath());
  }
}

using AllInstances = std::make_index_sequence<std::size(kInstances)>;

template <class Step, class T>
ForwardKernel<T> Kernels<Step, T>::Forward(const PersistentPlan& plan, bool tf32) {
  return WithMath<T>(
      tf32, [&](auto math) { return ForwardOf<Step, decltype(math)>(plan, AllInstances()); });
}
template <class Step, class T>
BackwardKernel<T> Kernels<Step, T>::Backward(const PersistentPlan& plan, bool tf32) {
  return WithMath<T>(
      tf32, [&](auto math) { return BackwardOf<Step, decltype(math)>(plan, AllInstances()); });
}

}  // namespace cuda
}  // namespace fastrnn
