// The CPU's Work for layers of a 16-bit type T. A step runs in float32 (work.h) on copies of its
// arrays, and what it writes is rounded to T. What is carried from step to step is float32, except
// h, as on CUDA.
#pragma once

#include "vectors/number.h"
#include "work.h"

namespace fastrnn {
namespace cpu {

// The scales and shifts of a normalised layer, in float32.
struct FloatGammas {
  float *i2h, *h2h;                       // [G*H]
  float *c = nullptr, *c_beta = nullptr;  // [H] (LSTM)

  void Take(const LayerDesc& desc, Carver* carver);
  template <class T>
  void Load(const LayerDesc& desc, const Parameters<const T>& weights) const;
  Parameters<const float> parameters() const;
};

template <class T>
struct RoundedForwardBuffers : ForwardBuffers<float> {
  float* c;  // [N, H], unless it is in the reserve
  // A step's arrays in float32; those that the layer has.
  float* h;         // [N, P]
  float* y;         // [N, P]
  float* hidden_n;  // [N, H]
  float* r;         // [N, H]
  float* i2h_bias;  // [G*H]
  float* h2h_bias;  // [G*H]
  T* rounded_r;     // [N, H], unless it is in the reserve
  // Of a normalised layer.
  FloatGammas gammas = {};
  float* normalized_input;   // [N, G*H], in training
  float* normalized_hidden;  // [N, G*H], in training

  RoundedForwardBuffers(const LayerDesc& desc, const StepProducts<float>& products, Carver* carver);
  void SumBiases(const LayerDesc& desc, const Parameters<const T>& weights) const;
  ForwardArraysOfDirection<float> Arrays(const LayerDesc&, const ForwardArrays&, int64_t) const {
    return {gates, c, rounded_r, noise};
  }
};

template <class T>
class RoundedForwardWork : public NoiseWork {
 public:
  RoundedForwardWork(const LayerDesc& desc, BlockProducts<float> products,
                     const RoundedForwardBuffers<T>& buffers, Rows rows, const Key& key)
      : NoiseWork(key),
        work_(desc, std::move(products), buffers, rows, key),
        buffers_(buffers),
        first_row_(rows.begin) {}

  void Gemm(int64_t m, int64_t n, int64_t k, Factor<T> a, Factor<T> b, float beta,
            Result<float> c) const {
    cpu::Gemm(m, n, k, a, b, beta, c);
  }
  void Normalize(const LayerDesc&, const NormalizedRows<T>&) const {}  // as ForwardWork
  void Step(const LayerDesc& desc, const ForwardStep<T>& step, const Parameters<const T>& weights);

 private:
  ForwardWork<float> work_;
  const RoundedForwardBuffers<T>& buffers_;
  int64_t first_row_;
};

template <class T>
struct RoundedBackwardBuffers {
  StepProducts<float>::Buffers products;
  BackwardArraysOfDirection<T> arrays = {};
  // A step's arrays in float32; those that the layer has. Some have more rows, for the gradients of
  // the normalisation.
  float* gates;         // [N, G*H]
  float* hidden_n;      // [N, H]
  float* h_0;           // [N, P]
  float* h_prev;        // [N, P]
  float* c_0;           // [N, H]
  float* y;             // [N, P]
  float* dy;            // [N, P]
  float* dgates_x;      // [N or more, G*H]
  float* dgates_h;      // [N, G*H]
  float* dgates_first;  // [N, G*H]
  float* dh_total;      // [N, P]
  float* zeros;         // [N, H]
  // Of a normalised layer.
  FloatGammas gammas = {};
  float* normalized_input;   // [N or more, G*H]
  float* normalized_hidden;  // [N or more, G*H]
  float* dshare_h;           // [N or more, G*H]
  float* dc_gamma;           // [N or more, H]
  float* dc_beta;            // [N or more, H]

  RoundedBackwardBuffers(const LayerDesc& desc, const StepProducts<float>& products,
                         Carver* carver);
  void Begin(const LayerDesc& desc, const BackwardArrays& args, int64_t direction);
};

template <class T>
class RoundedBackwardWork : public NoiseWork {
 public:
  RoundedBackwardWork(const LayerDesc& desc, BlockProducts<float> products,
                      const RoundedBackwardBuffers<T>& buffers, Rows rows, const Key& key);

  template <class Out>
  void Gemm(int64_t m, int64_t n, int64_t k, Factor<T> a, Factor<T> b, float beta,
            Result<Out> c) const {
    cpu::Gemm(m, n, k, a, b, beta, c);
  }
  void Step(const LayerDesc& desc, const BackwardStep<T>& step, const Parameters<const T>& weights);
  void CopyRows(const T* x, int64_t first_row, int64_t rows, int64_t columns,
                const int32_t* lengths, int64_t batch, T* to) const {
    CopyActiveRows(x, first_row, rows, columns, lengths, batch, to);
  }
  void SumRows(const T* dgates, int64_t rows, int64_t columns, bool accumulate, float* sums,
               float* copy) const;
  void NormGradients(const LayerDesc& desc, const NormChunk<T>& chunk) const;
  void Round(const float* from, int64_t values, T* to) const { Convert(from, values, to); }
  void SetZero(T* array, int64_t values) const { std::fill_n(array, values, T{}); }

 private:
  BackwardStep<float> InFloat(const LayerDesc& desc, const BackwardStep<T>& step) const;

  BackwardWork<float> work_;
  const RoundedBackwardBuffers<T>& buffers_;
  int64_t first_row_;
};

}  // namespace cpu
}  // namespace fastrnn
