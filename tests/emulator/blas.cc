// The emulated build's matrix products: plain loops in the place of cuBLAS.
#include "cuda/blas.h"

namespace fastrnn {
namespace cuda {

size_t Blas::WorkspaceBytes() { return 0; }

Blas::Blas(int, void*, void*) : handle_(nullptr) {}

void Blas::Gemm(int64_t m, int64_t n, int64_t k, Matrix a, Matrix b, float beta, float* c,
                int64_t c_stride) {
  const auto at = [](const Matrix& matrix, int64_t row, int64_t column) {
    return matrix.transpose == Transpose::kYes ? matrix.data[column * matrix.stride + row]
                                               : matrix.data[row * matrix.stride + column];
  };
  for (int64_t row = 0; row < m; ++row) {
    for (int64_t column = 0; column < n; ++column) {
      float sum = 0.0f;
      for (int64_t i = 0; i < k; ++i) sum += at(a, row, i) * at(b, i, column);
      float& result = c[row * c_stride + column];
      result = beta == 0.0f ? sum : sum + beta * result;
    }
  }
}

}  // namespace cuda
}  // namespace fastrnn
