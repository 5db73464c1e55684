// How the blocks of a group exchange arrays, step by step, within one launch.
//
// Each block has a flag: the number of the last round that the block has published, which only
// grows. A block writes its part of round r, and then sets its flag to r; readers of the part wait
// for that. The rounds alternate between two buffers.
//
// Why a reader sees what was written: every thread's stores come before Publish's barrier, and the
// barrier before thread 0's release of the flag (a release is cumulative: it covers what the
// barrier has made visible to thread 0). A lane's acquire that reads r or more comes after that
// release, and __syncwarp puts the loads of all lanes after the acquires of all lanes.
//
// Why a buffer may be written again: round r + 2 overwrites round r. A block publishes r + 1 only
// after all its warps have read what they need of round r, because the step's barriers are in
// between. It writes round r + 2 only after its warps, together, have waited for round r + 1 of
// every block of the group. By then all reads of round r are done.
//
// tests/memory_model checks both arguments in every execution that the PTX memory model allows.
//
// Exchanged arrays are read past the L1 cache (LoadExchanged), and never through the read-only
// path; so kernels must not declare them const __restrict__.
//
// Flags are zeroed before the launch, on its stream, so a launch that was aborted cannot confuse
// the next. The launch is cooperative, so a block that waits can rely on the others running.
#pragma once

#include "../runtime/device.cuh"

namespace fastrnn {
namespace cuda {

class Exchange {
 public:
  // flags: one for each block of the group.
  FASTRNN_DEVICE Exchange(unsigned* flags, int own)
      : flags_(flags), own_(KeepAddress(flags + own)) {}

  // Called by all threads of the block, after their stores of the round's part.
  FASTRNN_DEVICE void Publish(unsigned round) {
    __syncthreads();
    if (threadIdx.x == 0) StoreRelease(own_, round);
  }

  // Called by all lanes of a warp. Waits until blocks first to last - 1 have published the round.
  FASTRNN_DEVICE void Wait(int first, int last, unsigned round) const {
    for (int block = first + static_cast<int>(threadIdx.x % kWarp); block < last; block += kWarp) {
      while (LoadAcquire(flags_ + block) < round) {
      }
    }
    __syncwarp();
  }

 private:
  unsigned* flags_;
  unsigned* own_;
};

}  // namespace cuda
}  // namespace fastrnn
