// The products of a layer's steps, and how threads share them.
#pragma once

#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "../../layout.h"
#include "double_product.h"
#include "gemm.h"
#include "tile_product.h"

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
// our own (tile_product.h, double_product.h), or oneDNN's with weights that are packed or not. T
// is the layer's accumulator. Weights of a 16-bit type are converted to float32, unless they are
// packed and the processor multiplies the type: then the source is rounded to it.
template <class T>
class StepProduct {
 public:
  // accumulate: add to the destination.
  StepProduct(const LayerDesc& desc, const Split& split, int64_t n, int64_t k, Transpose transpose,
              bool accumulate);

  // The buffers of a call.
  struct Buffers {
    char* weights = nullptr;
    char* scratch = nullptr;
    T* converted = nullptr;   // weights of a 16-bit type
    char* rounded = nullptr;  // [N, k] the source in a 16-bit type
  };
  Buffers Take(Carver* carver) const;
  // Packs the weights, which are of the layer's type, into the buffers.
  void Load(const void* weights, const Buffers& buffers) const;
  // Which product, and how threads share the steps.
  std::string Reason() const;

 private:
  using Own = std::conditional_t<std::is_same<T, double>::value, DoubleProduct, TileProduct>;

  template <class Value>
  friend class BlockProduct;
  // The first column of a part of the result.
  int64_t Column(int64_t part) const;
  // The bytes of a part's weights and of the scratch memory of a part or block.
  size_t weight_stride() const;
  size_t scratch_stride() const;

  // Whether factors are of a 16-bit type, and whether they are multiplied in float32.
  bool sixteen_bits() const { return SizeOf(dtype_) < static_cast<int64_t>(sizeof(T)); }
  bool converts() const { return sixteen_bits() && (packed_.empty() || !Multiplies(dtype_)); }

  DType dtype_;  // of the layer
  int64_t blocks_, parts_, batch_, n_, k_;
  Transpose transpose_;
  bool accumulate_;
  std::optional<Own> own_;
  std::vector<PackedProduct> packed_;  // of each part
};

// A StepProduct for one block of rows.
template <class T>
class BlockProduct {
 public:
  // The buffers have been loaded with the weights.
  BlockProduct(const StepProduct<T>& product, const void* weights,
               const typename StepProduct<T>::Buffers& buffers, int64_t block, Rows rows);
  void Run(const T* source, T* destination);

 private:
  // Computes the columns of a part of the result. The source is in the products' type.
  void RunPart(const void* source, int64_t part, T* destination);

  const StepProduct<T>& product_;
  const T* weights_;
  char* rounded_;
  int64_t rows_;
  std::vector<PackedRun> packed_;  // of each part
};

// The products of a layer's steps in one pass.
template <class T>
struct StepProducts {
  StepProduct<T> h2h;
  std::optional<StepProduct<T>> h2r;  // if the layer is projected

  struct Buffers {
    typename StepProduct<T>::Buffers h2h, h2r;
  };
  Buffers Take(Carver* carver) const;
  void Load(const Weights& weights, const Buffers& buffers) const;
};

// StepProducts for one block of rows.
template <class T>
struct BlockProducts {
  BlockProduct<T> h2h;
  std::optional<BlockProduct<T>> h2r;

  BlockProducts(const StepProducts<T>& products, const Weights& weights,
                const typename StepProducts<T>::Buffers& buffers, int64_t block, Rows rows);
};

}  // namespace cpu
}  // namespace fastrnn
