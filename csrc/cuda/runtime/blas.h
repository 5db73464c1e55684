// Row-major matrix products on the device, with sums in float32. On a GPU this is cuBLAS, loaded at
// run time (blas.cc). The emulated build has a product of its own instead.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../../layout.h"
#include "../../rnn.h"

namespace fastrnn {
namespace cuda {

struct Matrix {
  const void* data;
  DType dtype;
  int64_t stride;  // values from one row to the next, as stored
  Transpose transpose;
};

struct Product {
  void* data;
  DType dtype;
  int64_t stride;
};

// Products on one stream, during one call of a layer. Throws LibraryError if no cuBLAS can be used,
// or if cuBLAS fails.
class Blas {
 public:
  // Bytes of the constructor's workspace, which must be aligned to kWorkspaceAlignment.
  static size_t WorkspaceBytes();

  // device is the current device, stream one of its streams. Products on two streams at once need
  // two workspaces, and lanes with different numbers. tf32: factors in float32 may be rounded to
  // TF32.
  Blas(int device, void* stream, void* workspace, bool tf32, int lane = 0);

  // c[m, n] = a[m, k] * b[k, n] + beta * c, where beta is 0 (c need not be initialised) or 1. The
  // sizes are those after transposition. Both factors are of one type, and c is of that or float32.
  // The same inputs give the same bits.
  void Gemm(int64_t m, int64_t n, int64_t k, Matrix a, Matrix b, float beta, Product c);

 private:
  void* handle_;
  bool tf32_;
};

}  // namespace cuda
}  // namespace fastrnn
