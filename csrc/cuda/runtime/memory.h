// Memory of the CUDA backend: devices.h describes the functions.
#pragma once

#include "../devices.h"

namespace fastrnn {
namespace cuda {

bool IsCapturing(int device, void* stream);
std::unique_ptr<DeviceMemory> AllocateArray(int device, size_t bytes, void* stream);
std::shared_ptr<const Event> Record(int device, void* stream);
PoolBytes PoolBytesOf(int device, bool set_back);
void FillWithZeros(int device, void* data, size_t bytes, void* stream);
void CopyToDevice(const DeviceMemory& to, const void* from, size_t bytes);
void CopyToHost(void* to, const DeviceMemory& from, size_t bytes);

}  // namespace cuda
}  // namespace fastrnn
