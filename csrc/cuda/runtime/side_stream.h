// A second stream beside a caller's, for work that does not depend on the caller's.
#pragma once

#include "runtime.h"

namespace fastrnn {
namespace cuda {

// The stream is of the current device, and of this thread, which keeps it: making one is slow. A
// thread may have at most one SideStream at a time.
class SideStream {
 public:
  // Work on the side stream starts after all work that `stream` has so far.
  SideStream(int device, cudaStream_t stream);
  // Joins, so that waiting for the caller's stream waits for all work, also after an error.
  ~SideStream();
  SideStream(const SideStream&) = delete;
  SideStream& operator=(const SideStream&) = delete;

  cudaStream_t get() const { return side_; }

  // Later work on the side stream starts after all work that the caller's stream has so far.
  void Follow();
  // Later work on the caller's stream starts after all work that the side stream has so far.
  void Join();

 private:
  cudaStream_t stream_, side_;
  cudaEvent_t event_;
  bool joined_ = false;
};

}  // namespace cuda
}  // namespace fastrnn
