// Matrix products on oneDNN, row-major float32. Errors are thrown as LibraryError.
#pragma once

#include <cstddef>
#include <cstdint>
#include <oneapi/dnnl/dnnl.hpp>
#include <string>

namespace fastrnn {
namespace cpu {

enum class Transpose : char { kNo = 'N', kYes = 'T' };

struct Matrix {
  const float* data;
  int64_t stride;  // values from one row to the next, as stored
  Transpose transpose = Transpose::kNo;
};

// c[m, n] = a[m, k] * b[k, n] + beta * c; the sizes are those after transposition.
void Gemm(int64_t m, int64_t n, int64_t k, Matrix a, Matrix b, float beta, float* c,
          int64_t c_stride);

// The product of many [m, k] sources with one [k, n] weight matrix, which is brought once into the
// order that the kernel reads best. At m = 32 that reaches twice the rate of a product that packs
// on every call.
class PackedProduct {
 public:
  // The weights are given as stored: [k, n] where transpose is no, [n, k] where it is yes.
  // accumulate: add to the destination instead of overwriting it.
  PackedProduct(int64_t m, int64_t n, int64_t k, Transpose transpose, bool accumulate);

  size_t weight_bytes() const { return weight_bytes_; }
  size_t scratch_bytes() const { return scratch_bytes_; }

  // Both buffers stay in use until the last Run; they are aligned to kWorkspaceAlignment.
  void Pack(const float* weights, void* packed, void* scratch);
  // source [m, k] and destination [m, n], both dense.
  void Run(const float* source, float* destination);

 private:
  dnnl::matmul::primitive_desc desc_;
  dnnl::memory::desc plain_weights_;
  size_t weight_bytes_ = 0;
  size_t scratch_bytes_ = 0;
  dnnl::matmul product_;
  dnnl::memory source_, weights_, destination_, scratch_;
};

}  // namespace cpu
}  // namespace fastrnn
