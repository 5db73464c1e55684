// A second stream beside a caller's, for work that does not depend on the caller's.
#pragma once

#include "runtime.h"

namespace fastrnn {
namespace cuda {

// Of the current device, and of this thread: it is made once, as streams are dear. At most one of
// these may live in a thread at a time.
class SideStream {
 public:
  // What the side gets starts after all that `stream` has got so far.
  SideStream(int device, cudaStream_t stream);
  // Joins, so that after an error, too, waiting for the caller's stream waits for all work.
  ~SideStream();
  SideStream(const SideStream&) = delete;
  SideStream& operator=(const SideStream&) = delete;

  cudaStream_t get() const { return side_; }

  // What the side gets from now on starts after all that the caller's stream has got so far.
  void Follow();
  // The other way round.
  void Join();

 private:
  cudaStream_t stream_, side_;
  cudaEvent_t event_;
  bool joined_ = false;
};

}  // namespace cuda
}  // namespace fastrnn
