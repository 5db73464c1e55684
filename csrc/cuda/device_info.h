// What the CUDA runtime says of the machine. No CUDA header, so that host files may include it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace fastrnn {
namespace cuda {

struct DeviceInfo {
  std::string name;
  int major, minor;  // compute capability
  int64_t memory_bytes;
  int multiprocessors;
};

struct Devices {
  int driver_version =
      0;  // 1000 * major + 10 * minor, the newest CUDA the driver serves; 0: no driver
  int runtime_version = 0;  // of the toolkit that this library was built with
  std::vector<DeviceInfo> devices;
  std::string error;  // why there are no devices
};

// Does not throw: a machine without a GPU or driver is an answer, which stands in `error`.
Devices QueryDevices();

}  // namespace cuda
}  // namespace fastrnn
