// For host files that call the CUDA runtime.
#pragma once

#include <string>

#include "../error.h"
#include "runtime.h"

namespace fastrnn {
namespace cuda {

// Makes a device current for the length of a scope. MXNet's runtime and ours keep the current
// device each for itself, so neither may rely on the other's.
class DeviceScope {
 public:
  explicit DeviceScope(int device) {
    FASTRNN_CUDA_TRY(cudaGetDevice(&previous_));
    changed_ = device != previous_;
    if (changed_) FASTRNN_CUDA_TRY(cudaSetDevice(device));
  }
  // What was current a moment ago can be made current again; a destructor could not report it.
  ~DeviceScope() {
    if (changed_) cudaSetDevice(previous_);
  }
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  int previous_ = 0;
  bool changed_ = false;
};

}  // namespace cuda
}  // namespace fastrnn
