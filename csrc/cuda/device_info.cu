#include "../error.h"
#include "device_info.h"
#include "runtime.h"

namespace fastrnn {
namespace cuda {

Devices QueryDevices() {
  Devices result;
  try {
    FASTRNN_CUDA_TRY(cudaRuntimeGetVersion(&result.runtime_version));
    FASTRNN_CUDA_TRY(cudaDriverGetVersion(&result.driver_version));
    int count = 0;
    FASTRNN_CUDA_TRY(cudaGetDeviceCount(&count));
    for (int i = 0; i < count; ++i) {
      cudaDeviceProp properties;
      FASTRNN_CUDA_TRY(cudaGetDeviceProperties(&properties, i));
      result.devices.push_back({properties.name, properties.major, properties.minor,
                                static_cast<int64_t>(properties.totalGlobalMem),
                                properties.multiProcessorCount});
    }
  } catch (const LibraryError& e) {
    result.devices.clear();
    result.error = e.what();
  }
  return result;
}

}  // namespace cuda
}  // namespace fastrnn
