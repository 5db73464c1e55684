// The emulated build's matrix products: plain loops in the place of cuBLAS, which round their
// factors as the tensor cores do, so that a wrong type shows.
#include "cuda/blas.h"

#include <map>
#include <vector>

#include "control.h"
#include "cuda/device.cuh"

namespace fastrnn {
namespace cuda {
namespace {

thread_local std::map<const void*, int> factor_uses;

float Load(const void* data, DType dtype, int64_t index) {
  switch (dtype) {
    case DType::kFloat16:
      return ToFloat(static_cast<const Half*>(data)[index]);
    case DType::kBfloat16:
      return ToFloat(static_cast<const Bfloat16*>(data)[index]);
    default:
      return static_cast<const float*>(data)[index];
  }
}

void Store(float value, void* data, DType dtype, int64_t index) {
  switch (dtype) {
    case DType::kFloat16:
      static_cast<Half*>(data)[index] = FromFloat<Half>(value);
      return;
    case DType::kBfloat16:
      static_cast<Bfloat16*>(data)[index] = FromFloat<Bfloat16>(value);
      return;
    default:
      static_cast<float*>(data)[index] = value;
  }
}

// A factor in float32, dense and not transposed.
std::vector<float> Factor(const Matrix& matrix, int64_t rows, int64_t columns, bool tf32) {
  std::vector<float> factor(rows * columns);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; ++column) {
      const int64_t index = matrix.transpose == Transpose::kYes ? column * matrix.stride + row
                                                                : row * matrix.stride + column;
      const float value = Load(matrix.data, matrix.dtype, index);
      const bool rounded = tf32 && matrix.dtype == DType::kFloat32;
      factor[row * columns + column] = rounded ? __uint_as_float(ToTf32(value)) : value;
    }
  }
  return factor;
}

}  // namespace

size_t Blas::WorkspaceBytes() { return 0; }

Blas::Blas(int, void*, void*, bool tf32) : handle_(nullptr), tf32_(tf32) {}

void Blas::Gemm(int64_t m, int64_t n, int64_t k, Matrix a, Matrix b, float beta, Product c) {
  ++factor_uses[b.data];
  const std::vector<float> left = Factor(a, m, k, tf32_), right = Factor(b, k, n, tf32_);
  std::vector<float> sums(n);
  for (int64_t row = 0; row < m; ++row) {
    sums.assign(n, 0.0f);
    for (int64_t i = 0; i < k; ++i) {
      const float value = left[row * k + i];
      for (int64_t column = 0; column < n; ++column) sums[column] += value * right[i * n + column];
    }
    for (int64_t column = 0; column < n; ++column) {
      const int64_t index = row * c.stride + column;
      const float before = beta == 0.0f ? 0.0f : beta * Load(c.data, c.dtype, index);
      Store(sums[column] + before, c.data, c.dtype, index);
    }
  }
}

}  // namespace cuda
}  // namespace fastrnn

int emulator_factor_uses(const void* array) { return fastrnn::cuda::factor_uses[array]; }
