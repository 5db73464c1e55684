// Masks between layers, as dropout makes them: products of two arrays, value by value.
#pragma once

#include "../error.h"
#include "arrays.cuh"
#include "device.cuh"

namespace fastrnn {
namespace cuda {

// The product may be in the place of a factor. Launched with ArrayBlocks(count) blocks of
// kArrayThreads.
template <class T>
__global__ void __launch_bounds__(kArrayThreads)
    MaskKernel(const T* values, const T* mask, int64_t count, T* product) {
  for (int64_t i = FirstIndex(); i < count; i += IndexStride()) {
    product[i] = FromFloat<T>(ToFloat(values[i]) * ToFloat(mask[i]));
  }
}

template <class T>
void LaunchMask(const T* values, const T* mask, int64_t count, T* product, cudaStream_t stream) {
  FASTRNN_CUDA_TRY(Launch(MaskKernel<T>, ArrayBlocks(count), kArrayThreads, 0, stream, values, mask,
                          count, product));
}

}  // namespace cuda
}  // namespace fastrnn
