// The CPU's Work for the walk through time (pass.h): products by oneDNN, in float64 our own,
// vectorised cells from pointwise.h. T is the layer's type: float or double.
//
// The running states are in the output arrays (hn and cn, dh0 and dc0), so a step reads and writes
// dense [N, H] arrays. Rows past their length take part in the products but not in the cells.
#pragma once

#include <algorithm>
#include <utility>

#include "../backward_pass.h"
#include "../forward_pass.h"
#include "../layout.h"
#include "noise.h"
#include "products/step_product.h"
#include "vectors/layer_norm.h"
#include "vectors/number.h"
#include "vectors/pointwise.h"

namespace fastrnn {
namespace cpu {

// Rows of a copy of inputs, with zeros past a row's length.
constexpr int64_t kInputCopyRows = 256;

// The most rows of a chunk of time.
int64_t ChunkRows(const LayerDesc& desc);

// CopyRows of pass.h.
template <class T>
void CopyActiveRows(const T* x, int64_t first_row, int64_t rows, int64_t columns,
                    const int32_t* lengths, int64_t batch, T* to) {
  for (int64_t row = first_row; row < first_row + rows; ++row, to += columns) {
    if (row / batch < lengths[row % batch]) {
      std::copy_n(x + row * columns, columns, to);
    } else {
      std::fill_n(to, columns, T{});
    }
  }
}

template <class T>
struct ForwardBuffers {
  typename StepProducts<T>::Buffers products;
  T* sums;   // [N, SumsOfRow]: hidden state's share of the pre-activations, then projected h
  T* bias;   // [G*H]
  T* gates;  // [chunk rows, G*H], unless they are in the reserve
  T* r;      // [N, H], if the layer is projected and r not in the reserve
  ForwardNoiseArrays noise;
  ForwardBuffers(const LayerDesc& desc, const StepProducts<T>& products, Carver* carver);
  void SumBiases(const LayerDesc& desc, const Parameters<const T>& weights) const;
  ForwardArraysOfDirection<T> Arrays(const LayerDesc& desc, const ForwardArrays& args,
                                     int64_t direction) const {
    return {gates, CellOf<T>(desc, args.cn, direction), r, noise};
  }
};

// The work of one block of rows, or of all.
template <class T>
class ForwardWork : public NoiseWork {
 public:
  ForwardWork(const LayerDesc& desc, BlockProducts<T> products, const ForwardBuffers<T>& buffers,
              Rows rows, const Key& key);
  void Gemm(int64_t m, int64_t n, int64_t k, Factor<T> a, Factor<T> b, float beta,
            Result<T> c) const {
    cpu::Gemm(m, n, k, a, b, beta, c);
  }
  void Normalize(const LayerDesc&, const NormalizedRows<T>&) const {}  // RunNormalized does
  void Step(const LayerDesc& desc, const ForwardStep<T>& step, const Parameters<const T>& weights);

 private:
  // The step's cells.
  void RunCells(const LayerDesc& desc, const ForwardStep<T>& step);
  void RunUnits(const LayerDesc& desc, const ForwardStep<T>& step, int64_t n, Units units);
  // The cells of a normalised layer, with its products.
  void RunNormalized(const LayerDesc& desc, const ForwardStep<T>& step,
                     const Parameters<const T>& weights);
  void RunNormalizedGroup(const LayerDesc& desc, const ForwardStep<T>& step,
                          const Parameters<const T>& weights, Rows rows);
  void RunNormalizedRow(const LayerDesc& desc, const ForwardStep<T>& step,
                        const NormalizedForwardRow<T>& row, int64_t n);
  // What the cells of a row read and write.
  ForwardRow<T> RowOf(const LayerDesc& desc, const ForwardStep<T>& step, int64_t n) const;
  // The output and h of a projected layer.
  void Project(const ForwardStep<T>& step);

  BlockProducts<T> products_;
  ForwardUnits<T> units_;
  T* sums_;
  const T* bias_;
};

template <class T>
struct BackwardBuffers {
  typename StepProducts<T>::Buffers products;
  BackwardArraysOfDirection<T> arrays = {};  // without dh and dc, which Begin() adds
  BackwardBuffers(const LayerDesc& desc, const StepProducts<T>& products, Carver* carver);
  // Takes the gradients of the final states.
  void Begin(const LayerDesc& desc, const BackwardArrays& args, int64_t direction);
};

// Whether a row takes part in a step, and whether this is the row's first step.
struct Presence {
  bool active, first;
};
template <class T>
Presence PresenceOf(const BackwardStep<T>& step, int64_t row) {
  const int64_t length = step.lengths == nullptr ? step.steps : step.lengths[row];
  const int64_t last_time = std::min(length, step.steps) - 1;
  return {step.time <= last_time, step.time == (step.reverse ? last_time : 0)};
}

template <class T>
class BackwardWork : public NoiseWork {
 public:
  BackwardWork(const LayerDesc& desc, BlockProducts<T> products, const Key& key);
  void Gemm(int64_t m, int64_t n, int64_t k, Factor<T> a, Factor<T> b, float beta,
            Result<T> c) const {
    cpu::Gemm(m, n, k, a, b, beta, c);
  }
  void Step(const LayerDesc& desc, const BackwardStep<T>& step, const Parameters<const T>& weights);
  void CopyRows(const T* x, int64_t first_row, int64_t rows, int64_t columns,
                const int32_t* lengths, int64_t batch, T* to) const {
    CopyActiveRows(x, first_row, rows, columns, lengths, batch, to);
  }
  void SumRows(const T* dgates, int64_t rows, int64_t columns, bool accumulate, T* sums,
               T* copy) const;
  void NormGradients(const LayerDesc& desc, const NormChunk<T>& chunk) const;
  void Round(const T* from, int64_t values, T* to) const { Convert(from, values, to); }
  void SetZero(T* array, int64_t values) const { std::fill_n(array, values, T(0)); }

 private:
  void RunCells(const LayerDesc& desc, const BackwardStep<T>& step);
  void RunUnits(const LayerDesc& desc, const BackwardStep<T>& step, int64_t n, Units units);
  // The cells of a normalised layer, and the gradients of their products.
  void RunNormalized(const LayerDesc& desc, const BackwardStep<T>& step,
                     const Parameters<const T>& weights);
  void RunNormalizedRow(const LayerDesc& desc, const BackwardStep<T>& step,
                        const Parameters<const T>& weights, int64_t n);
  // The gradient of r of a projected layer.
  void Project(const BackwardStep<T>& step);

  BlockProducts<T> products_;
  BackwardUnits<T> units_;
};

}  // namespace cpu
}  // namespace fastrnn
