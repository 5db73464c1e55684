// Matrix products on the device, row-major float32. On a GPU this is cuBLAS, which is loaded at run
// time: blas.cc says which one. The emulated build has a product of its own in its place.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastrnn {
namespace cuda {

enum class Transpose : char { kNo, kYes };

struct Matrix {
  const float* data;
  int64_t stride;  // values from one row to the next, as stored
  Transpose transpose = Transpose::kNo;
};

// Products on one stream, for the length of one call of a layer. Throws LibraryError where no
// cuBLAS can be used, or where one fails.
class Blas {
 public:
  // Bytes that the constructor's workspace must have; its alignment is kWorkspaceAlignment.
  static size_t WorkspaceBytes();

  // device is the current device, stream one of its streams. Products on two streams at once need
  // two workspaces.
  Blas(int device, void* stream, void* workspace);

  // c[m, n] = a[m, k] * b[k, n] + beta * c, where beta is 0 (c need not be initialised) or 1. The
  // sizes are those after transposition. The same inputs give the same bits.
  void Gemm(int64_t m, int64_t n, int64_t k, Matrix a, Matrix b, float beta, float* c,
            int64_t c_stride);

 private:
  void* handle_;
};

}  // namespace cuda
}  // namespace fastrnn
