// Kernels on whole arrays: sums over rows, for the bias gradients; conversions; and copies of
// inputs with zeros past a row's length.
#pragma once

#include "../runtime/device.cuh"

namespace fastrnn {
namespace cuda {

constexpr int kArrayThreads = 256;
constexpr int64_t kMaxArrayBlocks = 4096;

inline unsigned ArrayBlocks(int64_t values) {
  const int64_t blocks = (values + kArrayThreads - 1) / kArrayThreads;
  return static_cast<unsigned>(blocks < kMaxArrayBlocks ? blocks : kMaxArrayBlocks);
}

// The index of a thread's first value, and the distance to the next.
FASTRNN_DEVICE int64_t FirstIndex() {
  return static_cast<int64_t>(blockIdx.x) * kArrayThreads + threadIdx.x;
}
FASTRNN_DEVICE int64_t IndexStride() { return static_cast<int64_t>(gridDim.x) * kArrayThreads; }

// This and the next are launched with ArrayBlocks(values) blocks of kArrayThreads.
template <class T>
__global__ void __launch_bounds__(kArrayThreads)
    RoundKernel(const float* from, int64_t values, T* to) {
  for (int64_t i = FirstIndex(); i < values; i += IndexStride()) to[i] = FromFloat<T>(from[i]);
}

// Rows first_row to first_row + rows - 1 of x [T * N, columns], with zeros in those past their
// length.
template <class T>
__global__ void __launch_bounds__(kArrayThreads)
    CopyRowsKernel(const T* x, int64_t first_row, int64_t rows, int64_t columns,
                   const int32_t* lengths, int64_t batch, T* to) {
  for (int64_t i = FirstIndex(); i < rows * columns; i += IndexStride()) {
    const int64_t row = first_row + i / columns;
    const bool active = row / batch < lengths[row % batch];
    to[i] = active ? x[first_row * columns + i] : FromFloat<T>(0.0f);
  }
}

// ---- sums over rows -----------------------------------------------------------------------------
//
// In two launches and a fixed order, so that the same inputs give the same bits: SumRowsKernel adds
// up parts of the rows, SumPartsKernel adds up the parts.

constexpr int kSumThreads = 8;  // threads that share a column of a part

// The most parts of a matrix, and the rows that a part should have at least.
constexpr int64_t kMaxParts = 64;
constexpr int64_t kMinRowsPerPart = 64;

inline int64_t SumParts(int64_t rows) {
  const int64_t parts = (rows + kMinRowsPerPart - 1) / kMinRowsPerPart;
  return parts < kMaxParts ? parts : kMaxParts;
}

// partial[part, j] = sum over the rows of the part of matrix[row, j], or of its product with
// factor[row, j] unless that is null. Blocks of kWarp x kSumThreads in a grid of columns / kWarp,
// rounded up, by parts.
template <class T>
__global__ void __launch_bounds__(kWarp* kSumThreads)
    SumRowsKernel(const T* matrix, const T* factor, int64_t rows, int64_t columns,
                  int64_t rows_per_part, float* partial) {
  FASTRNN_SHARED(float, sums, kSumThreads* kWarp);
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kWarp + threadIdx.x;
  const int64_t begin = blockIdx.y * rows_per_part;
  const int64_t end = min(begin + rows_per_part, rows);
  float sum = 0.0f;
  if (column < columns) {
    for (int64_t row = begin + threadIdx.y; row < end; row += kSumThreads) {
      const int64_t i = row * columns + column;
      sum += ToFloat(matrix[i]) * (factor == nullptr ? 1.0f : ToFloat(factor[i]));
    }
  }
  sums[threadIdx.y * kWarp + threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y == 0 && column < columns) {
    for (int i = 1; i < kSumThreads; ++i) sum += sums[i * kWarp + threadIdx.x];
    partial[blockIdx.y * columns + column] = sum;
  }
}

// sums[j] = sum of partial[part, j] over the parts, added to sums[j] if accumulate is set. copy
// receives the same, unless it is null. Launched with ArrayBlocks(columns) blocks.
[[maybe_unused]] static __global__ void __launch_bounds__(kArrayThreads)
    SumPartsKernel(const float* partial, int parts, int64_t columns, bool accumulate, float* sums,
                   float* copy) {
  for (int64_t column = FirstIndex(); column < columns; column += IndexStride()) {
    float sum = accumulate ? sums[column] : 0.0f;
    for (int part = 0; part < parts; ++part) sum += partial[part * columns + column];
    sums[column] = sum;
    if (copy != nullptr) copy[column] = sum;
  }
}

}  // namespace cuda
}  // namespace fastrnn
