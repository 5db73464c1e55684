// How the blocks of a cluster fetch what their group exchanges: once for all of them. sm_90.
//
// Without this every block of a group reads all that is exchanged from L2. Here a part of it, what
// one warp of each block multiplies, is fetched by one block of the cluster, and goes into the
// shared memory of all. Part w is warp w's everywhere, and fetched by warp w of block w % kCluster.
//
// Why a copy has what was written: the warp that starts it has waited for the round (exchange.cuh),
// and its fence orders the copy, which is not the thread's own reading, behind that.
//
// Why the copy may write where the round before was: its warp has also waited until every block of
// the cluster has published this round, which a block does after all its warps have multiplied the
// one before. So one buffer does. (No fence stands between what they read there and what the copy
// writes: their reading has ended before they publish, which is all that an overwriting needs.)
//
// Why exchanged memory may be written again, two rounds later: a block publishes a round only when
// all parts of the one before have come to it. exchange.cuh's argument holds with the coming of the
// copies in the place of the reading, as long as the parts, taken together, wait for every block
// that copies come to: also for those that fill a cluster and have no units.
//
// A block ends once all of the cluster have multiplied the last round: until then a copy to another
// block, which this one has started, may be on its way.
#pragma once

#include "exchange.cuh"
#include "plan.h"

namespace fastrnn {
namespace cuda {

template <unsigned kCluster>
class Multicast {
 public:
  FASTRNN_DEVICE Multicast(const ProductShape& shape, SharedCarver* carver)
      : memory_(shape, carver) {}

  // To be called by all threads of the block, before the first round.
  FASTRNN_DEVICE void Begin() const {
    if (threadIdx.x < kProductWarps) InitCopyBarrier(Barrier(threadIdx.x));
    ClusterBarrier();
  }

  // To be called by all threads of the block, after the last round.
  FASTRNN_DEVICE void End() const {
    ClusterBarrier();  // No mutant: the emulator's blocks stay until the grid has ended.
  }

  // To be called by all lanes of a warp that multiplies: brings its part, `bytes` from `offset` on,
  // of the exchanged array of round `round`, which counts from 0. wait: until all of the part is
  // published. Returns where the array then is.
  template <class T, class Wait>
  FASTRNN_DEVICE const T* Fetch(const T* exchanged, size_t offset, unsigned bytes, unsigned round,
                                const Exchange& exchange, const Wait& wait) const {
    const unsigned warp = threadIdx.x / kWarp, rank = blockIdx.x % kCluster;
    const bool first_lane = threadIdx.x % kWarp == 0;
    if (first_lane) ArriveExpecting(Barrier(warp), bytes);
    if (warp % kCluster == rank) {
      wait();
      const int cluster = static_cast<int>(blockIdx.x - rank);
      exchange.Wait(cluster, cluster + static_cast<int>(kCluster), round + 1);
      if (first_lane) {
        FenceForBulkCopies();
        CopyToCluster(memory_.stage + offset,
                      reinterpret_cast<const unsigned char*>(exchanged) + offset, bytes,
                      Barrier(warp), (1u << kCluster) - 1);
      }
    }
    WaitForBulkCopies(Barrier(warp), round);
    __syncwarp();  // No mutant: each lane has waited, and the next call wants them together.
    return reinterpret_cast<const T*>(memory_.stage);
  }

 private:
  FASTRNN_DEVICE CopyBarrier* Barrier(unsigned warp) const {
    return reinterpret_cast<CopyBarrier*>(memory_.barriers) + warp;
  }

  MulticastMemory memory_;
};

// Where there are no clusters.
template <>
class Multicast<1> {
 public:
  FASTRNN_DEVICE Multicast(const ProductShape&, SharedCarver*) {}
};

}  // namespace cuda
}  // namespace fastrnn
