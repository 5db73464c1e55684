// The emulator's half of csrc/cuda/runtime/launch.cuh, which includes this file and describes the
// names.
#pragma once

#include <cstddef>
#include <utility>

#include "cuda_emulator.h"

namespace fastrnn {
namespace cuda {

template <class... Parameters, class... Arguments>
cudaError_t LaunchAs(bool cooperative, unsigned cluster, void (*kernel)(Parameters...), dim3 grid,
                     dim3 block, size_t shared_bytes, cudaStream_t stream,
                     Arguments&&... arguments) {
  if (!::emulator::AllowsShared(reinterpret_cast<const void*>(kernel), shared_bytes)) {
    return ::emulator::NoteError(cudaErrorInvalidValue);
  }
  return ::emulator::Launch({grid, block, shared_bytes, cooperative, cluster, stream}, kernel,
                            std::forward<Arguments>(arguments)...);
}
template <class... Parameters>
cudaError_t MaxResidentBlocks(void (*kernel)(Parameters...), int threads, size_t shared_bytes,
                              int* blocks, unsigned cluster = 1) {
  ::emulator::AllowShared(reinterpret_cast<const void*>(kernel));
  *blocks = ::emulator::ResidentBlocks(threads, shared_bytes, cluster);
  return cudaSuccess;
}

}  // namespace cuda
}  // namespace fastrnn
