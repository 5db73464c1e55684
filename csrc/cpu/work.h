// The CPU's Work for the walk through time (pass.h): products by oneDNN, vectorised cells from
// pointwise.cc.
//
// The running states are in the output arrays (hn and cn, dh0 and dc0), so a step reads and writes
// dense [N, H] arrays. Rows past their length take part in the products but not in the cells.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "../backward_pass.h"
#include "../forward_pass.h"
#include "../layout.h"
#include "gemm.h"
#include "pointwise.h"
#include "small.h"

namespace fastrnn {
namespace cpu {

// How the threads share the steps of a layer.
struct Split {
  // Blocks of rows. A thread takes a block through all steps of a chunk and waits for no other.
  int64_t blocks = 1;
  // Parts of the units, if there is one block. The threads share them and meet in every step.
  int64_t parts = 1;

  static Split Of(const LayerDesc& desc);
  Rows Block(const LayerDesc& desc, int64_t block) const {
    return {desc.batch * block / blocks, desc.batch * (block + 1) / blocks};
  }
};

// The product of a state or gate gradient [N, k] with the recurrent weights, made once for a layer:
// our own (small.h), or oneDNN's with weights that are packed or not.
class StepProduct {
 public:
  // accumulate: add to the destination.
  StepProduct(const LayerDesc& desc, const Split& split, int64_t n, int64_t k, Transpose transpose,
              bool accumulate);

  // The buffers of a call.
  struct Buffers {
    char* weights = nullptr;
    char* scratch = nullptr;
  };
  Buffers Take(Carver* carver) const;
  // Packs the weights into the buffers.
  void Load(const float* weights, const Buffers& buffers) const;
  // Which product, and how threads share the steps.
  std::string Reason() const;

 private:
  friend class BlockProduct;
  // The first column of a part of the result.
  int64_t Column(int64_t part) const;
  // The bytes of a part's weights and of the scratch memory of a part or block.
  size_t weight_stride() const;
  size_t scratch_stride() const;

  int64_t blocks_, parts_, n_, k_;
  Transpose transpose_;
  bool accumulate_;
  std::optional<SmallProduct> small_;
  std::vector<PackedProduct> packed_;  // of each part
};

// A StepProduct for one block of rows.
class BlockProduct {
 public:
  // The buffers have been loaded with the weights.
  BlockProduct(const StepProduct& product, const float* weights,
               const StepProduct::Buffers& buffers, int64_t block, Rows rows);
  void Run(const float* source, float* destination);

 private:
  // Computes the columns of a part of the result.
  void RunPart(const float* source, int64_t part, float* destination);

  const StepProduct& product_;
  const float* weights_;
  int64_t rows_;
  std::vector<PackedRun> packed_;  // of each part
};

// The products of a layer's steps in one pass.
struct StepProducts {
  StepProduct h2h;
  std::optional<StepProduct> h2r;  // if the layer is projected

  struct Buffers {
    StepProduct::Buffers h2h, h2r;
  };
  Buffers Take(Carver* carver) const;
  void Load(const Parameters<const float>& weights, const Buffers& buffers) const;
};

// StepProducts for one block of rows.
struct BlockProducts {
  BlockProduct h2h;
  std::optional<BlockProduct> h2r;

  BlockProducts(const StepProducts& products, const Parameters<const float>& weights,
                const StepProducts::Buffers& buffers, int64_t block, Rows rows);
};

struct ForwardBuffers {
  StepProducts::Buffers products;
  float* sums;   // [N, SumsOfRow]: hidden state's share of the pre-activations, then projected h
  float* bias;   // [G*H]
  float* gates;  // [chunk rows, G*H], unless they are in the reserve
  float* r;      // [N, H], if the layer is projected and r not in the reserve
  ForwardBuffers(const LayerDesc& desc, const StepProducts& products, Carver* carver);
  void SumBiases(const LayerDesc& desc, const Parameters<const float>& weights) const;
};

// The work of one block of rows, or of all.
class ForwardWork {
 public:
  ForwardWork(const LayerDesc& desc, BlockProducts products, const ForwardBuffers& buffers,
              Rows rows);
  void Gemm(int64_t m, int64_t n, int64_t k, Factor<float> a, Factor<float> b, float beta,
            Result<float> c) const {
    cpu::Gemm(m, n, k, a, b, beta, c);
  }
  void Step(const LayerDesc& desc, const ForwardStep<float>& step,
            const Parameters<const float>& weights);

 private:
  // The step's cells.
  void RunCells(const LayerDesc& desc, const ForwardStep<float>& step);
  // The output and h of a projected layer.
  void Project(const ForwardStep<float>& step);

  BlockProducts products_;
  ForwardUnits<float> units_;
  float* sums_;
  const float* bias_;
};

struct BackwardBuffers {
  StepProducts::Buffers products;
  BackwardArraysOfDirection<float> arrays = {};  // without dh and dc
  BackwardBuffers(const LayerDesc& desc, const StepProducts& products, Carver* carver);
};

class BackwardWork {
 public:
  BackwardWork(const LayerDesc& desc, BlockProducts products);
  void Gemm(int64_t m, int64_t n, int64_t k, Factor<float> a, Factor<float> b, float beta,
            Result<float> c) const {
    cpu::Gemm(m, n, k, a, b, beta, c);
  }
  void Step(const LayerDesc& desc, const BackwardStep<float>& step,
            const Parameters<const float>& weights);
  void CopyRows(const float* x, int64_t first_row, int64_t rows, int64_t columns,
                const int32_t* lengths, int64_t batch, float* to) const;
  void SumRows(const float* dgates, int64_t rows, int64_t columns, bool accumulate, float* sums,
               float* copy) const;
  void Round(const float* from, int64_t values, float* to) const;
  void SetZero(float* array, int64_t values) const { std::fill_n(array, values, 0.0f); }

 private:
  void RunCells(const LayerDesc& desc, const BackwardStep<float>& step);
  // The gradient of r of a projected layer.
  void Project(const BackwardStep<float>& step);

  BlockProducts products_;
  BackwardUnits<float> units_;
};

int64_t ChunkRows();

}  // namespace cpu
}  // namespace fastrnn
