// For host files that call the CUDA runtime.
#pragma once

#include <string>

#include "../../error.h"
#include "runtime.h"

namespace fastrnn {
namespace cuda {

// Makes a device current for the length of a scope. MXNet's runtime and ours each have a current
// device, so neither may rely on the other's.
class DeviceScope {
 public:
  // Leaves a device that is current alone: setting it again would replace the caller's own context.
  explicit DeviceScope(int device) {
    FASTRNN_CUDA_TRY(cudaGetDevice(&previous_));
    changed_ = device != previous_;
    if (changed_) MakeCurrent(device);
  }
  // The previous device can be made current again; a destructor could not report a failure.
  ~DeviceScope() {
    if (changed_) cudaSetDevice(previous_);
  }
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  static void MakeCurrent(int device) {
    const cudaError_t status = cudaSetDevice(device);
    if (status == cudaErrorInvalidDevice) {
      cudaGetLastError();
      int count = 0;
      FASTRNN_CUDA_TRY(cudaGetDeviceCount(&count));
      throw InvalidArgument("device is " + std::to_string(device) + ", expected one of CUDA's " +
                                std::to_string(count) + ", counted from 0",
                            __FILE__, __LINE__);
    }
    FASTRNN_CUDA_TRY(status);
  }

  int previous_ = 0;
  bool changed_ = false;
};

}  // namespace cuda
}  // namespace fastrnn
