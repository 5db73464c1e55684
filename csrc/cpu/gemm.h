// Matrix products on oneDNN, row-major float32. Errors are thrown as LibraryError.
#pragma once

#include <cstddef>
#include <cstdint>
#include <oneapi/dnnl/dnnl.hpp>
#include <string>

#include "../pass.h"

namespace fastrnn {
namespace cpu {

// c[m, n] = a[m, k] * b[k, n] + beta * c; the sizes are those after transposition.
void Gemm(int64_t m, int64_t n, int64_t k, Factor<float> a, Factor<float> b, float beta,
          Result<float> c);

// The product of many [m, k] sources with one [k, n] weight matrix, which is packed once into the
// order that the kernel reads best. At m = 32 this runs at twice the rate of a product that packs
// every time. Made once for the sizes; any thread may use it.
class PackedProduct {
 public:
  // The weights are stored as [k, n], or as [n, k] if transpose is kYes.
  // accumulate: add to the destination instead of overwriting it.
  PackedProduct(int64_t m, int64_t n, int64_t k, Transpose transpose, bool accumulate);

  size_t weight_bytes() const { return desc_.weights_desc().get_size(); }
  size_t scratch_bytes() const;

 private:
  friend class PackedWeights;
  dnnl::memory::desc plain_weights_;
  dnnl::matmul::primitive_desc desc_;
  dnnl::matmul product_;
  dnnl::reorder::primitive_desc pack_desc_;
  dnnl::reorder pack_;
};

// A product with the weights of one call.
class PackedWeights {
 public:
  // Packs the weights. Run uses both buffers, which are aligned to kWorkspaceAlignment.
  PackedWeights(const PackedProduct& product, const float* weights, void* packed, void* scratch);
  // source [m, k] and destination [m, n], both dense.
  void Run(const float* source, float* destination);

 private:
  const PackedProduct& product_;
  dnnl::memory source_, weights_, destination_, scratch_;
};

std::string OnednnVersion();

}  // namespace cpu
}  // namespace fastrnn
