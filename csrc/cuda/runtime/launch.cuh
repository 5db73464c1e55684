// Launches, and how much of a grid the device holds at once; part of the vocabulary that device.cuh
// describes.
#pragma once

#include <cstddef>
#include <tuple>
#include <utility>

#include "runtime.h"

#if defined(FASTRNN_EMULATE)
#include "launch_emulated.h"
#else

namespace fastrnn {
namespace cuda {

// Allows the kernel its dynamic shared memory on the current device, which CUDA requires above 48
// KiB. It is always allowed all that a block can have: another thread may be about to launch the
// same kernel with more. So such a kernel must not have static shared memory.
inline cudaError_t AllowShared(const void* kernel, size_t bytes) {
  if (bytes <= (48u << 10)) return cudaSuccess;
  int device = 0, most = 0;
  cudaError_t status = cudaGetDevice(&device);
  if (status == cudaSuccess) {
    status = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  }
  if (status != cudaSuccess) return status;
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most);
}

// Since when clusters have all that the kernels need of them: st.async (PTX ISA 8.1).
#define FASTRNN_CLUSTER_CUDART 12010

#if CUDART_VERSION >= FASTRNN_CLUSTER_CUDART
// A cooperative grid in clusters of neighbours along x.
inline cudaError_t LaunchWithClusters(const void* function, unsigned cluster, dim3 grid, dim3 block,
                                      void** arguments, size_t shared_bytes, cudaStream_t stream) {
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim = {cluster, 1, 1};
  attributes[1].id = cudaLaunchAttributeCooperative;
  attributes[1].val.cooperative = 1;
  cudaLaunchConfig_t config = {grid, block, shared_bytes, stream, attributes, 2};
  return cudaLaunchKernelExC(&config, function, arguments);
}

inline cudaError_t MaxResidentClusters(const void* function, unsigned cluster, int threads,
                                       size_t shared_bytes, int* clusters) {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {cluster, 1, 1};
  cudaLaunchConfig_t config = {
      dim3(cluster), dim3(static_cast<unsigned>(threads)), shared_bytes, nullptr, &attribute, 1};
  return cudaOccupancyMaxActiveClusters(clusters, function, &config);
}
#else
inline cudaError_t LaunchWithClusters(const void*, unsigned, dim3, dim3, void**, size_t,
                                      cudaStream_t) {
  return cudaErrorNotSupported;
}
inline cudaError_t MaxResidentClusters(const void*, unsigned, int, size_t, int* clusters) {
  *clusters = 0;
  return cudaSuccess;
}
#endif

// cluster: how many blocks form one; 1: there are no clusters. Those are always cooperative.
template <class... Parameters, class... Arguments>
cudaError_t LaunchAs(bool cooperative, unsigned cluster, void (*kernel)(Parameters...), dim3 grid,
                     dim3 block, size_t shared_bytes, cudaStream_t stream,
                     Arguments&&... arguments) {
  std::tuple<Parameters...> values(std::forward<Arguments>(arguments)...);
  void* pointers[sizeof...(Parameters) + 1];
  std::apply(
      [&pointers](auto&... value) {
        int i = 0;
        ((pointers[i++] = const_cast<void*>(static_cast<const void*>(&value))), ...);
      },
      values);
  const void* function = reinterpret_cast<const void*>(kernel);
  if (cluster > 1) {
    return LaunchWithClusters(function, cluster, grid, block, pointers, shared_bytes, stream);
  }
  return cooperative
             ? cudaLaunchCooperativeKernel(function, grid, block, pointers, shared_bytes, stream)
             : cudaLaunchKernel(function, grid, block, pointers, shared_bytes, stream);
}

// How many blocks of the kernel, in clusters, the current device can hold at once: the largest
// cooperative grid. This also allows the kernel its shared memory on the device, for all later
// launches.
template <class... Parameters>
cudaError_t MaxResidentBlocks(void (*kernel)(Parameters...), int threads, size_t shared_bytes,
                              int* blocks, unsigned cluster = 1) {
  const void* function = reinterpret_cast<const void*>(kernel);
  int device = 0, multiprocessors = 0, per_multiprocessor = 0;
  cudaError_t status = AllowShared(function, shared_bytes);
  if (cluster > 1) {
    int clusters = 0;
    if (status == cudaSuccess) {
      status = MaxResidentClusters(function, cluster, threads, shared_bytes, &clusters);
    }
    *blocks = clusters * static_cast<int>(cluster);
    return status;
  }
  if (status == cudaSuccess) status = cudaGetDevice(&device);
  if (status == cudaSuccess) {
    status = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  }
  if (status == cudaSuccess) {
    status = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_multiprocessor, function, threads,
                                                           shared_bytes);
  }
  *blocks = multiprocessors * per_multiprocessor;
  return status;
}

}  // namespace cuda
}  // namespace fastrnn

#endif

namespace fastrnn {
namespace cuda {

// The compute capability that the kernel's code for the current device was compiled for, its
// __CUDA_ARCH__: lower than the device's if there is no code for that.
template <class... Parameters>
cudaError_t CompiledFor(void (*kernel)(Parameters...), int* capability) {
  cudaFuncAttributes attributes;
  const cudaError_t status =
      cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(kernel));
  *capability = attributes.ptxVersion;
  return status;
}

template <class Kernel, class... Arguments>
cudaError_t Launch(Kernel kernel, dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                   Arguments&&... arguments) {
  return LaunchAs(false, 1, kernel, grid, block, shared_bytes, stream,
                  std::forward<Arguments>(arguments)...);
}

// All blocks of the grid are on the device at once, so they may wait for each other. A cluster is
// `cluster` neighbours along x; more than one need sm_90.
template <class Kernel, class... Arguments>
cudaError_t LaunchCooperative(Kernel kernel, unsigned cluster, dim3 grid, dim3 block,
                              size_t shared_bytes, cudaStream_t stream, Arguments&&... arguments) {
  return LaunchAs(true, cluster, kernel, grid, block, shared_bytes, stream,
                  std::forward<Arguments>(arguments)...);
}

}  // namespace cuda
}  // namespace fastrnn
