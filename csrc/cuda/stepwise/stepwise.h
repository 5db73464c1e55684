// The stepwise algorithm: per step one product with the recurrent weights and one kernel for
// everything else. It covers every size, and what it covers is checked before (backend.cu).
//
// Both directions are walked (pass.h) at once, step by step in turn and on two streams, where the
// workspace that takes is not too much: a small product leaves a GPU room for another.
#pragma once

#include <algorithm>

#include "../../error.h"
#include "../../layout.h"
#include "../../pass.h"
#include "../../rnn.h"
#include "../plan.h"
#include "../runtime/blas.h"
#include "../runtime/device.cuh"
#include "pointwise.cuh"

namespace fastrnn {
namespace cuda {

// T is the layer's type: float, Half or Bfloat16. The device is current.
template <class T>
struct StepwiseForward {
  static size_t Bytes(const LayerDesc& desc);
  static void Run(const LayerDesc& desc, const ForwardArgs& args, bool tf32);
};
template <class T>
struct StepwiseBackward {
  static size_t Bytes(const LayerDesc& desc);
  static void Run(const LayerDesc& desc, const BackwardArgs& args, bool tf32);
};

// ---- for its parts -------------------------------------------------------------------------

// Whether two directions have enough steps to be worth a second stream.
inline bool MayRunAtOnce(const LayerDesc& desc) { return desc.directions == 2 && desc.steps >= 4; }
// The most workspace that two streams may take; half of what MXNet can give. Emulated builds set it
// lower, so that small layers are beyond it.
#if !defined(FASTRNN_CUDA_BYTES_AT_ONCE)
#define FASTRNN_CUDA_BYTES_AT_ONCE (size_t{1} << 30)
#endif
constexpr size_t kMostBytesAtOnce = FASTRNN_CUDA_BYTES_AT_ONCE;

template <class T>
constexpr DType kDType = DType::kFloat32;
template <>
inline constexpr DType kDType<Half> = DType::kFloat16;
template <>
inline constexpr DType kDType<Bfloat16> = DType::kBfloat16;

template <class T>
Matrix MatrixOf(Factor<T> factor) {
  return {factor.data, kDType<T>, factor.stride, factor.transpose};
}

template <class Step, class Arguments>
void LaunchStep(const Arguments& step, cudaStream_t stream) {
  FASTRNN_CUDA_TRY(Launch(StepKernel<Step, Arguments>, StepGrid(step.rows, step.hidden),
                          kStepThreads, 0, stream, step));
}

template <class Arguments>
void LaunchStep(Mode mode, const Arguments& step, cudaStream_t stream) {
  ForCell(mode, [&](auto cell) { LaunchStep<decltype(cell)>(step, stream); });
}

}  // namespace cuda
}  // namespace fastrnn
