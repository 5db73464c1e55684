// The gap behind each array in dynamic shared memory: csrc/cuda/runtime/shared_carver.h includes
// this file. AddressSanitizer watches the gap, so that an overrun into the next array is seen.
#pragma once

#include <cstddef>

namespace emulator {

// Marks shared memory that no thread may access from now on.
void GuardGap(const void* begin, size_t bytes);

}  // namespace emulator

namespace fastrnn {
namespace cuda {

constexpr size_t kSharedGap = 64;
inline void GuardGap(const void* begin, size_t bytes) { ::emulator::GuardGap(begin, bytes); }

}  // namespace cuda
}  // namespace fastrnn
