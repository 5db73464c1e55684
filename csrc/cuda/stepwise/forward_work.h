// CUDA's Work for the forward walk through time (forward_pass.h). The algorithms differ only in how
// they run a chunk's steps.
#pragma once

#include "../../forward_pass.h"
#include "stepwise.h"

namespace fastrnn {
namespace cuda {

// In float32, a chunk's products are written where its activated gates will be.
template <class T>
bool SumsInReserve(const LayerDesc& desc) {
  return kDType<T> == DType::kFloat32 && GatesInReserve(desc);
}

// The workspace of directions that are computed at once, or one after the other.
struct ForwardBuffers {
  ForwardArraysOfDirection<float> arrays[kMaxDirections] = {};
  // For each of the streams that directions are computed on.
  float* sums[kMaxDirections] = {};  // [N, SumsOfRow]
  char* blas[kMaxDirections] = {};
  Key* key;

  ForwardBuffers(const LayerDesc& desc, Carver* carver, bool sums_in_reserve,
                 int64_t directions_at_once, int64_t streams) {
    const int64_t rows = Walk(desc, 0, ForwardChunkRows(desc)).chunk_steps * desc.batch;
    for (int64_t d = 0; d < desc.directions; ++d) {
      if (d >= directions_at_once) {
        arrays[d] = arrays[0];
      } else {
        if (!sums_in_reserve) arrays[d].input_sum = carver->Take<float>(rows * desc.gate_rows());
        if (desc.has_c() && !desc.reserve) {
          arrays[d].c = carver->Take<float>(desc.batch * desc.hidden);
        }
        if (desc.projected() && !desc.reserve) {
          arrays[d].r = carver->Take<char>(desc.batch * desc.hidden * SizeOf(desc.dtype));
        }
        arrays[d].noise.Take(desc, carver);
      }
      sums[d] = sums[0];
      blas[d] = blas[0];
      if (d >= streams) continue;
      sums[d] = carver->Take<float>(desc.batch * SumsOfRow(desc));
      blas[d] = carver->Take<char>(Blas::WorkspaceBytes());
    }
    key = TakeKey(desc, carver);
  }
};

// Products and steps on one stream.
template <class T>
class ForwardWork : public NoiseWork {
 public:
  // blas is on the stream. sums: [N, SumsOfRow]. key: for a layer with noise
  ForwardWork(Blas* blas, cudaStream_t stream, float* sums, const Key* key = nullptr)
      : NoiseWork(stream, key), blas_(*blas), stream_(stream), sums_(sums) {}

  void Gemm(int64_t m, int64_t n, int64_t k, Factor<T> a, Factor<T> b, float beta,
            Result<float> c) const {
    const Product into = {c.data, DType::kFloat32, c.stride};
    blas_.Gemm(m, n, k, MatrixOf(a), MatrixOf(b), beta, into);
  }

  void Normalize(const LayerDesc& desc, const NormalizedRows<T>& rows) const {
    FASTRNN_CUDA_TRY(Launch(NormalizeKernel<T>, NormBlocks(rows.rows), kNormThreads, 0, stream_,
                            rows, GateRow(desc), static_cast<int>(desc.batch)));
  }

  void Step(const LayerDesc& desc, ForwardStep<T> step, const Parameters<const T>& weights) const {
    const int64_t H = desc.hidden, P = desc.outputs(), GH = desc.gate_rows();
    Gemm(step.rows, GH, P, {step.h_prev, P}, {weights.h2h_weight, P, Transpose::kYes}, 0.0f,
         {sums_, GH});
    step.hidden_sum = sums_;
    if (desc.layer_norm) {
      Normalize(desc, {step.time, step.rows, step.lengths, sums_, weights.h2h_gamma,
                       step.normalized_hidden, step.hidden_rstd});
      LaunchNormalized(desc, step, weights, stream_);
    } else if (desc.clip.clips()) {
      LaunchStep<ClippedLstmCell>(OfCells(step), stream_);
    } else {
      LaunchStep(desc.mode, OfCells(step), stream_);
    }
    if (!desc.projected()) return;
    Gemm(step.rows, P, H, {step.r, H}, {weights.h2r_weight, H, Transpose::kYes}, 0.0f, {sums_, P});
    LaunchProject(step, sums_, stream_);
  }

 private:
  Blas& blas_;
  cudaStream_t stream_;
  float* sums_;
};

template <class T>
using CudaForwardDirection = ForwardDirection<T, ForwardWork<T>>;

}  // namespace cuda
}  // namespace fastrnn
