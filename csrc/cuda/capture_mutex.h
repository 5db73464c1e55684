// What keeps a thread's captures from what other threads of ours do to the whole device.
#pragma once

#include <shared_mutex>

namespace fastrnn {
namespace cuda {

// Captures hold it shared. Who makes or destroys a cuBLAS handle holds it alone: both wait for the
// device, which fails while one of its streams is captured, and is the end of that capture.
inline std::shared_mutex& CaptureMutex() {
  static auto* mutex = new std::shared_mutex;  // Threads may end after what is static.
  return *mutex;
}

}  // namespace cuda
}  // namespace fastrnn
