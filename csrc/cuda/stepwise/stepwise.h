// The stepwise algorithm: per step one product with the recurrent weights and one kernel for
// everything else. It runs layers of every size that the backend accepts (backend.cu).
//
// Both directions run at once, step by step in turn and on two streams, unless their workspace
// would be too large: a small product leaves room for another on the GPU.
#pragma once

#include <algorithm>

#include "../../error.h"
#include "../../layout.h"
#include "../../pass.h"
#include "../../rnn.h"
#include "../plan.h"
#include "../runtime/blas.h"
#include "../runtime/device.cuh"
#include "noise.cuh"
#include "projection.cuh"

namespace fastrnn {
namespace cuda {

// T is the layer's type: float, Half or Bfloat16. The device is current.
template <class T>
struct StepwiseForward {
  static size_t Bytes(const LayerDesc& desc);
  static void Run(const LayerDesc& desc, const ForwardArrays& args, bool tf32);
};
template <class T>
struct StepwiseBackward {
  static size_t Bytes(const LayerDesc& desc);
  static void Run(const LayerDesc& desc, const BackwardArrays& args, bool tf32);
};

// ---- shared by both passes ----------------------------------------------------------------------

// Whether two directions have enough steps to be worth a second stream.
inline bool MayRunAtOnce(const LayerDesc& desc) { return desc.directions == 2 && desc.steps >= 4; }
// The most workspace for two streams, half of what MXNet can grant. Emulated builds set it lower,
// so that small layers exceed it.
#if !defined(FASTRNN_CUDA_BYTES_AT_ONCE)
#define FASTRNN_CUDA_BYTES_AT_ONCE (size_t{1} << 30)
#endif
constexpr size_t kMostBytesAtOnce = FASTRNN_CUDA_BYTES_AT_ONCE;

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
void LaunchProject(const Arguments& step, const float* projected, cudaStream_t stream) {
  FASTRNN_CUDA_TRY(Launch(ProjectKernel<Arguments>, StepGrid(step.rows, step.outputs), kStepThreads,
                          0, stream, step, projected));
}

template <class Arguments>
void LaunchStep(Mode mode, const Arguments& step, cudaStream_t stream) {
  ForCell(mode, [&](auto cell) { LaunchStep<decltype(cell)>(step, stream); });
}

}  // namespace cuda
}  // namespace fastrnn
