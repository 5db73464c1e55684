// How the blocks of a group hand each other arrays, step by step, within one launch.
//
// Each block has a flag, which holds the number of the last round that the block has published, and
// only grows. A block writes its part of round r, and its flag becomes r; who needs the part waits
// for that. There are two buffers, which the rounds use in turn.
//
// Why a reader sees what was written: every thread's stores come before Publish's barrier, and the
// barrier before thread 0's release of the flag (a release is cumulative: it covers what the
// barrier has made visible to thread 0). A lane's acquire that reads r or more comes after that
// release, and
// __syncwarp puts the loads of all lanes after all lanes' acquires.
//
// Why a buffer may be written again: round r + 2 goes where round r was. A block publishes r + 1
// only after all its warps have read what they need of round r, as the barriers of the step stand
// between, and it writes round r + 2 only after its warps, taken together, have waited for round
// r + 1 of every block of the group. By then all reads of round r are done.
//
// Exchanged arrays are read past the L1 cache (LoadExchanged), and never through the read-only
// path, for which a kernel must not call them const __restrict__.
//
// Flags are zeroed before the launch, on its stream: a launch that was cut short leaves nothing
// that the next one could trip on. The launch is cooperative: a block that waits may rely on the
// others being there.
#pragma once

#include "../runtime/device.cuh"

namespace fastrnn {
namespace cuda {

class Exchange {
 public:
  // flags: one for each block of the group.
  FASTRNN_DEVICE Exchange(unsigned* flags, int own) : flags_(flags), own_(own) {}

  // To be called by all threads of the block, after their stores of the round's part.
  FASTRNN_DEVICE void Publish(unsigned round) {
    __syncthreads();
    if (threadIdx.x == 0) StoreRelease(flags_ + own_, round);
  }

  // To be called by all lanes of a warp: waits until blocks first to last - 1 have published the
  // round.
  FASTRNN_DEVICE void Wait(int first, int last, unsigned round) const {
    for (int block = first + static_cast<int>(threadIdx.x % kWarp); block < last; block += kWarp) {
      while (LoadAcquire(flags_ + block) < round) {
      }
    }
    __syncwarp();
  }

 private:
  unsigned* flags_;
  int own_;
};

}  // namespace cuda
}  // namespace fastrnn
