// CUDA's Work for the backward walk through time (backward_pass.h). The algorithms differ only in
// how they run a chunk's steps.
#pragma once

#include "../../backward_pass.h"
#include "arrays.cuh"
#include "stepwise.h"

namespace fastrnn {
namespace cuda {

// Bytes of a copy of inputs, with zeros past a row's length.
constexpr int64_t kInputCopyBytes = FASTRNN_CUDA_CHUNK_BYTES / 16;

template <class T>
struct BackwardBuffers {
  BackwardArraysOfDirection<T> arrays;
  float* partial;  // [parts, G*H]
  char* blas;
  Key* key;

  BackwardBuffers(const LayerDesc& desc, Carver* carver) {
    const int64_t GH = desc.gate_rows(), P = desc.outputs(), states = desc.batch * desc.hidden;
    const int64_t rows = Walk(desc, 0, BackwardChunkRows(desc)).chunk_steps * desc.batch;
    arrays.dgates_x = carver->Take<T>(rows * GH);
    const bool split = desc.cell().split_shares;
    arrays.dgates_h = split || desc.layer_norm ? carver->Take<T>(rows * GH) : arrays.dgates_x;
    arrays.dgates_first = carver->Take<T>(desc.batch * GH);
    const int64_t most = kInputCopyBytes / (desc.input * static_cast<int64_t>(sizeof(T)));
    arrays.copy_rows = std::min(rows, std::max<int64_t>(1, most));
    arrays.input_copy = carver->Take<T>(arrays.copy_rows * desc.input);
    arrays.dh = carver->Take<float>(desc.batch * P);
    arrays.dc = desc.has_c() ? carver->Take<float>(states) : nullptr;
    if (desc.projected()) {
      arrays.dh_total = carver->Take<T>(rows * P);
      arrays.dr = carver->Take<float>(states);
      arrays.zeros = carver->Take<T>(states);
    }
    arrays.noise.Take(desc, carver);
    key = TakeKey(desc, carver);
    if (desc.layer_norm) {
      arrays.dshare_h = split ? carver->Take<T>(rows * GH) : arrays.dgates_x;
      arrays.dc_gamma = desc.has_c() ? carver->Take<T>(rows * desc.hidden) : nullptr;
      arrays.dc_beta = desc.has_c() ? carver->Take<T>(rows * desc.hidden) : nullptr;
    }
    partial = carver->Take<float>(SumParts(rows) * GH);
    if (!std::is_same<T, float>::value) {
      arrays.sums.i2h_weight = carver->Take<float>(GH * desc.input);
      arrays.sums.h2h_weight = carver->Take<float>(GH * P);
      arrays.sums.i2h_bias = carver->Take<float>(GH);
      arrays.sums.h2h_bias = carver->Take<float>(GH);
      if (desc.projected()) arrays.sums.h2r_weight = carver->Take<float>(P * desc.hidden);
      if (desc.layer_norm) {
        arrays.sums.i2h_gamma = carver->Take<float>(GH);
        arrays.sums.h2h_gamma = carver->Take<float>(GH);
        arrays.sums.c_gamma = carver->Take<float>(desc.hidden);
        arrays.sums.c_beta = carver->Take<float>(desc.hidden);
      }
    }
    blas = carver->Take<char>(Blas::WorkspaceBytes());
  }
};

// Products and kernels on one stream.
template <class T>
class BackwardWork : public NoiseWork {
 public:
  // blas is on the stream. partial: [parts, G*H]. key: for a layer with noise
  BackwardWork(Blas* blas, cudaStream_t stream, float* partial, const Key* key = nullptr)
      : NoiseWork(stream, key), blas_(*blas), stream_(stream), partial_(partial) {}

  template <class Out>
  void Gemm(int64_t m, int64_t n, int64_t k, Factor<T> a, Factor<T> b, float beta,
            Result<Out> c) const {
    const Product into = {c.data, kDType<Out>, c.stride};
    blas_.Gemm(m, n, k, MatrixOf(a), MatrixOf(b), beta, into);
  }

  void Step(const LayerDesc& desc, const BackwardStep<T>& step,
            const Parameters<const T>& weights) const {
    const int64_t H = desc.hidden, P = desc.outputs(), GH = desc.gate_rows();
    if (desc.projected()) {
      LaunchProject(step, nullptr, stream_);
      Gemm(step.rows, H, P, {step.dh_total, P}, {weights.h2r_weight, H}, 0.0f,
           Result<float>{step.dr, H});
    }
    if (desc.layer_norm) {
      LaunchNormalized(desc, step, weights, stream_);
    } else {
      LaunchStep(desc.mode, OfCells(step), stream_);
    }
    Gemm(step.rows, P, GH, {step.dgates_h, GH}, {weights.h2h_weight, P},
         step.dh_wanted ? 1.0f : 0.0f, Result<float>{step.dh, P});
  }

  void CopyRows(const T* x, int64_t first_row, int64_t rows, int64_t columns,
                const int32_t* lengths, int64_t batch, T* to) const {
    FASTRNN_CUDA_TRY(Launch(CopyRowsKernel<T>, ArrayBlocks(rows * columns), kArrayThreads, 0,
                            stream_, x, first_row, rows, columns, lengths, batch, to));
  }

  void SumRows(const T* dgates, int64_t rows, int64_t columns, bool accumulate, float* sums,
               float* copy) const {
    SumProducts(dgates, nullptr, rows, columns, accumulate, sums, copy);
  }

  // Biases and gammas come after the normalisation: their gradients are summed before dgates_x
  // passes it.
  void NormGradients(const LayerDesc& desc, const NormChunk<T>& p) const {
    const int64_t GH = desc.gate_rows(), H = desc.hidden;
    const auto sum = [&](const T* matrix, const T* factor, int64_t columns, float* sums,
                         float* copy = nullptr) {
      SumProducts(matrix, factor, p.rows, columns, p.accumulate, sums, copy);
    };
    const bool split = desc.cell().split_shares;
    sum(p.dgates_x, nullptr, GH, p.sums.i2h_bias, split ? nullptr : p.sums.h2h_bias);
    if (split) sum(p.dshare_h, nullptr, GH, p.sums.h2h_bias);
    sum(p.dgates_x, p.normalized_input, GH, p.sums.i2h_gamma);
    sum(p.dshare_h, p.normalized_hidden, GH, p.sums.h2h_gamma);
    if (desc.has_c()) {
      sum(p.dc_gamma, nullptr, H, p.sums.c_gamma);
      sum(p.dc_beta, nullptr, H, p.sums.c_beta);
    }
    FASTRNN_CUDA_TRY(Launch(NormalizeGradientKernel<T>, NormBlocks(p.rows), kNormThreads, 0,
                            stream_, static_cast<int>(p.rows), GateRow(desc), p.i2h_gamma,
                            p.normalized_input, p.input_rstd, p.dgates_x));
  }

  void Round(const float* from, int64_t values, T* to) const {
    FASTRNN_CUDA_TRY(
        Launch(RoundKernel<T>, ArrayBlocks(values), kArrayThreads, 0, stream_, from, values, to));
  }

  void SetZero(T* array, int64_t values) const {
    const size_t bytes = static_cast<size_t>(values) * sizeof(T);
    FASTRNN_CUDA_TRY(cudaMemsetAsync(array, 0, bytes, stream_));
  }

 private:
  // Sums the rows of `matrix`, or of its product with `factor` unless that is null.
  void SumProducts(const T* matrix, const T* factor, int64_t rows, int64_t columns, bool accumulate,
                   float* sums, float* copy) const {
    const int64_t parts = SumParts(rows), rows_per_part = (rows + parts - 1) / parts;
    const dim3 grid(static_cast<unsigned>((columns + kWarp - 1) / kWarp),
                    static_cast<unsigned>(parts));
    FASTRNN_CUDA_TRY(Launch(SumRowsKernel<T>, grid, dim3(kWarp, kSumThreads), 0, stream_, matrix,
                            factor, rows, columns, rows_per_part, partial_));
    FASTRNN_CUDA_TRY(Launch(SumPartsKernel, ArrayBlocks(columns), kArrayThreads, 0, stream_,
                            partial_, static_cast<int>(parts), columns, accumulate, sums, copy));
  }

  Blas& blas_;
  cudaStream_t stream_;
  float* partial_;
};

template <class T>
using CudaBackwardDirection = BackwardDirection<T, BackwardWork<T>>;

}  // namespace cuda
}  // namespace fastrnn
