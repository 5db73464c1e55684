// The memory of the CUDA backend.
#pragma once

#include "../devices.h"

namespace fastrnn {
namespace cuda {

class MemoryBackend : public CudaBackend {
 public:
  std::unique_ptr<Memory> Allocate(int device, size_t bytes, void* stream) const override;
  void FillWithZeros(int device, void* data, size_t bytes, void* stream) const override;
  bool IsCapturing(int device, void* stream) const override;

  std::unique_ptr<DeviceMemory> AllocateArray(int device, size_t bytes,
                                              void* stream) const override;
  std::shared_ptr<const Event> Record(int device, void* stream) const override;
  void CopyToDevice(const DeviceMemory& to, const void* from, size_t bytes) const override;
  void CopyToHost(void* to, const DeviceMemory& from, size_t bytes) const override;
  PoolBytes PoolBytesOf(int device, bool set_back) const override;
};

bool IsCapturing(int device, void* stream);

}  // namespace cuda
}  // namespace fastrnn
