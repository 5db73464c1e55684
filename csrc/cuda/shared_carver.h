// Where arrays stand in a block's shared memory.
#pragma once

#include <cstddef>

#include "../cells/math.h"

#if defined(FASTRNN_EMULATE)
namespace emulator {
void GuardGap(const void* begin, size_t bytes);
}
#endif

namespace fastrnn {
namespace cuda {

// Places arrays one after the other in dynamic shared memory: with a null base on the host to learn
// the size, and with the base on the device. In emulation a gap follows each array, which
// AddressSanitizer watches, so that an overrun into the next one is seen.
class SharedCarver {
 public:
  FASTRNN_HOST_DEVICE explicit SharedCarver(unsigned char* base) : base_(base) {}

  template <class T>
  FASTRNN_HOST_DEVICE T* Take(size_t count) {
    T* array = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + bytes_);
    const size_t end = bytes_ + count * sizeof(T);
    bytes_ = (end + kAlignment - 1) / kAlignment * kAlignment;
#if defined(FASTRNN_EMULATE)
    bytes_ += kGap;
    if (base_ != nullptr) ::emulator::GuardGap(base_ + end, bytes_ - end);
#endif
    return array;
  }

  FASTRNN_HOST_DEVICE size_t bytes() const { return bytes_; }

 private:
  static constexpr size_t kAlignment = 16;
  static constexpr size_t kGap = 64;
  unsigned char* base_;
  size_t bytes_ = 0;
};

}  // namespace cuda
}  // namespace fastrnn
