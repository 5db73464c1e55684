// Matrix products on oneDNN, row-major. Errors are thrown as LibraryError.
#pragma once

#include <cstddef>
#include <cstdint>
#include <oneapi/dnnl/dnnl.hpp>
#include <string>
#include <vector>

#include "../../pass.h"
#include "../../rnn.h"

namespace fastrnn {
namespace cpu {

// Threads' parts of a result begin at multiples of this, which suits oneDNN's vectors.
constexpr int64_t kPartMultiple = 64;

// c[m, n] = a[m, k] * b[k, n] + beta * c; the sizes are those after transposition. The
// threads of the scope (threads.h) share the rows or columns of c.
void Gemm(int64_t m, int64_t n, int64_t k, Factor<float> a, Factor<float> b, float beta,
          Result<float> c);

// Whether oneDNN multiplies numbers of this 16-bit type on this processor as they are, summing in
// float32.
bool Multiplies(DType dtype);

// The same with factors of a 16-bit type (number.h), which are converted to float32 where the
// processor does not multiply them. Out is float or T.
template <class T, class Out>
void Gemm(int64_t m, int64_t n, int64_t k, Factor<T> a, Factor<T> b, float beta, Result<Out> c);

// The product of many [m, k] sources with one [k, n] weight matrix, which is packed once into the
// order that the kernel reads best. At m = 32 this runs at twice the rate of a product that packs
// every time. Made once for the sizes; any thread may use it.
class PackedProduct {
 public:
  // The weights are stored as [k, n], or as [n, k] if transpose is kYes, with rows `stride` apart.
  // Sources have m rows or, if ragged, one fewer. Rows of the destination are destination_stride
  // apart. accumulate: add to the destination instead of overwriting it. dtype is that of both
  // factors; the destination is in float32.
  PackedProduct(DType dtype, int64_t m, bool ragged, int64_t n, int64_t k, Transpose transpose,
                int64_t stride, int64_t destination_stride, bool accumulate);

  size_t weight_bytes() const { return products_[0].desc.weights_desc().get_size(); }
  size_t scratch_bytes() const;
  // Both buffers are aligned to kWorkspaceAlignment.
  void Pack(const void* weights, void* packed, void* scratch) const;

 private:
  friend class PackedRun;
  struct Product {
    dnnl::matmul::primitive_desc desc;
    dnnl::matmul product;
  };
  int64_t m_;
  dnnl::memory::desc plain_weights_;
  std::vector<Product> products_;  // for m rows and, if ragged, for one fewer
  dnnl::reorder::primitive_desc pack_desc_;
  dnnl::reorder pack_;
};

// Runs a product with packed weights. Threads have one each, with scratch memory of their own.
class PackedRun {
 public:
  // m: the product's, or one fewer.
  PackedRun(const PackedProduct& product, int64_t m, void* packed, void* scratch);
  // source [m, k], dense.
  void Run(const void* source, void* destination);

 private:
  const PackedProduct::Product& product_;
  dnnl::memory source_, weights_, destination_, scratch_;
};

std::string OnednnVersion();

}  // namespace cpu
}  // namespace fastrnn
