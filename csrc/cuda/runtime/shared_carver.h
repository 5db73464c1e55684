// The arrays in a block's shared memory.
#pragma once

#include <cstddef>

#include "../../cells/math.h"

#if defined(FASTRNN_EMULATE)
#include "shared_gap.h"
#else
namespace fastrnn {
namespace cuda {

constexpr size_t kSharedGap = 0;
FASTRNN_HOST_DEVICE void GuardGap(const void*, size_t) {}

}  // namespace cuda
}  // namespace fastrnn
#endif

namespace fastrnn {
namespace cuda {

// Places arrays one after the other in dynamic shared memory. On the host, with a null base, it
// computes the size. In the emulator, each array has a gap behind it.
class SharedCarver {
 public:
  FASTRNN_HOST_DEVICE explicit SharedCarver(unsigned char* base) : base_(base) {}

  template <class T>
  FASTRNN_HOST_DEVICE T* Take(size_t count) {
#if defined(__CUDA_ARCH__)
    // With a null pointer as its other source, the compiler would not know that this is shared
    // memory, and would load from it as from any.
    T* array = reinterpret_cast<T*>(base_ + bytes_);
#else
    T* array = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + bytes_);
#endif
    const size_t end = bytes_ + count * sizeof(T);
    bytes_ = (end + kAlignment - 1) / kAlignment * kAlignment + kSharedGap;
    if (base_ != nullptr) GuardGap(base_ + end, bytes_ - end);
    return array;
  }

  FASTRNN_HOST_DEVICE size_t bytes() const { return bytes_; }

 private:
  static constexpr size_t kAlignment = 16;
  unsigned char* base_;
  size_t bytes_ = 0;
};

}  // namespace cuda
}  // namespace fastrnn
