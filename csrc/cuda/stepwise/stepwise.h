// The stepwise algorithm: per step one product with the recurrent weights and one kernel for
// everything else; a projection, layer normalisation and noise add products and kernels. It runs
// layers of every size that the backend accepts (backend.cu).
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
#include "layer_norm.cuh"
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

// The cells of a normalised layer, after the products have been normalised.
template <class T>
void LaunchNormalized(const LayerDesc& desc, const ForwardStep<T>& step,
                      const Parameters<const T>& weights, cudaStream_t stream) {
  if (!desc.has_c()) return LaunchStep(desc.mode, step, stream);
  LaunchStep<NormalizedLstmCell>(step, stream);
  FASTRNN_CUDA_TRY(Launch(NormalizedOutputKernel<T>, NormBlocks(step.rows), kNormThreads, 0, stream,
                          step, weights.c_gamma, weights.c_beta));
}

// The cells backward, and the gradients of the hidden state's product.
template <class T>
void LaunchNormalized(const LayerDesc& desc, const BackwardStep<T>& step,
                      const Parameters<const T>& weights, cudaStream_t stream) {
  const unsigned blocks = NormBlocks(step.rows);
  if (desc.has_c()) {
    FASTRNN_CUDA_TRY(Launch(NormalizedLstmKernel<T>, blocks, kNormThreads, 0, stream, step,
                            weights.c_gamma, weights.c_beta));
  } else {
    BackwardStep<T> cells = step;
    cells.dgates_h = step.dshare_h;
    LaunchStep(desc.mode, cells, stream);
  }
  FASTRNN_CUDA_TRY(Launch(NormalizeStepGradientKernel<T>, blocks, kNormThreads, 0, stream, step,
                          GateRow(desc), weights.h2h_gamma));
}

}  // namespace cuda
}  // namespace fastrnn
