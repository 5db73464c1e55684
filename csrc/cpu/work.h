// The CPU's Work for the walk through time (pass.h): products by oneDNN, vectorised cells from
// pointwise.cc.
//
// The running states are in the output arrays (hn and cn, dh0 and dc0), so a step reads and writes
// dense [N, H] arrays. Rows past their length take part in the products but not in the cells.
#pragma once

#include <optional>
#include <string>

#include "../layout.h"
#include "../pass.h"
#include "gemm.h"
#include "pointwise.h"
#include "small.h"

namespace fastrnn {
namespace cpu {

// The product of a state or gate gradient [N, k] with the recurrent weights, made once for a layer:
// small, or oneDNN's with weights that are packed or not.
class StepProduct {
 public:
  // accumulate: add to the destination.
  StepProduct(const LayerDesc& desc, int64_t n, int64_t k, Transpose transpose, bool accumulate);

  // The buffers of a call.
  struct Buffers {
    char* weights = nullptr;
    char* scratch = nullptr;
  };
  Buffers Take(Carver* carver) const;
  // Which product, and why.
  std::string Reason() const;

 private:
  friend class LoadedProduct;
  int64_t m_, n_, k_;
  Transpose transpose_;
  bool accumulate_;
  std::optional<SmallProduct> small_;
  std::optional<PackedProduct> packed_;
};

// A StepProduct with the weights of a call.
class LoadedProduct {
 public:
  LoadedProduct(const StepProduct& product, const float* weights, StepProduct::Buffers buffers);
  void Run(const float* source, float* destination);

 private:
  const StepProduct& product_;
  const float* weights_;  // of the small product: packed
  std::optional<PackedWeights> packed_;
};

struct ForwardBuffers {
  StepProduct::Buffers product;
  float* share;  // [N, G*H] hidden state's share of the pre-activations
  float* bias;   // [G*H]
  float* gates;  // [chunk rows, G*H], unless they are in the reserve
  ForwardBuffers(const LayerDesc& desc, const StepProduct& h2h, Carver* carver);
};

class ForwardWork {
 public:
  ForwardWork(const LayerDesc& desc, const StepProduct& h2h, const Parameters<const float>& weights,
              const ForwardBuffers& buffers);
  void Gemm(int64_t m, int64_t n, int64_t k, Factor<float> a, Factor<float> b, float beta,
            Result<float> c) const {
    cpu::Gemm(m, n, k, a, b, beta, c);
  }
  void Step(const LayerDesc& desc, const ForwardStep<float>& step, const float* h2h_weight);

 private:
  LoadedProduct h2h_;
  ForwardUnits units_;
  float* share_;
  const float* bias_;
};

struct BackwardBuffers {
  StepProduct::Buffers product;
  BackwardArraysOfDirection<float> arrays = {};  // without dh and dc
  BackwardBuffers(const LayerDesc& desc, const StepProduct& h2h, Carver* carver);
};

class BackwardWork {
 public:
  BackwardWork(const LayerDesc& desc, const StepProduct& h2h, const float* h2h_weight,
               const BackwardBuffers& buffers);
  void Gemm(int64_t m, int64_t n, int64_t k, Factor<float> a, Factor<float> b, float beta,
            Result<float> c) const {
    cpu::Gemm(m, n, k, a, b, beta, c);
  }
  void Step(const LayerDesc& desc, const BackwardStep<float>& step, const float* h2h_weight);
  void CopyRows(const float* x, int64_t first_row, int64_t rows, int64_t columns,
                const int32_t* lengths, int64_t batch, float* to) const;
  void SumRows(const float* dgates, int64_t rows, int64_t columns, bool accumulate, float* sums,
               float* copy) const;
  void Round(const float* from, int64_t values, float* to) const;
  void SetZero(float* array, int64_t values) const { std::fill_n(array, values, 0.0f); }

 private:
  LoadedProduct h2h_;
  BackwardUnits units_;
};

int64_t ChunkRows();

}  // namespace cpu
}  // namespace fastrnn
