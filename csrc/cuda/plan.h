// What a layer's recurrent part is run with. No CUDA header: heuristics.h makes plans on the host,
// also for devices that are not there.
#pragma once

#include <cstddef>

namespace fastrnn {
namespace cuda {

enum class Algorithm { kStepwise, kPersistent };

// How a persistent kernel's work is cut. A block multiplies 16 * row_tiles rows of weights by
// 8 * batch_tiles rows of the batch. Forward these are the gates of its units, as many as there is
// room for; backward they are units of dh, of which its own are the split-th part. The blocks of a
// group have all units of their rows of the batch, and exchange with nobody else. Groups that do
// not fit beside each other are launched one after the other.
//
// Kernels exist for kBatchTiles and, forward, for SmallRowTiles and twice as many.
constexpr int SmallRowTiles(int gates) { return gates == 1 ? 1 : 2; }
constexpr int kBatchTiles[] = {1, 2, 4};

// Backward they exist for these: the blocks that share K are as many as `split`.
struct BackwardTiles {
  int row_tiles, split;
};
constexpr BackwardTiles kBackwardTilesOfRnn[] = {{1, 1}, {2, 1}};
constexpr BackwardTiles kBackwardTiles[] = {{1, 1}, {2, 4}, {4, 4}};

struct PersistentPlan {
  int row_tiles = 1;
  int batch_tiles = 1;
  int units = 1;         // hidden units of a block
  int blocks = 1;        // of a group
  int groups = 1;        // in one launch and direction
  int launches = 1;      // for all rows of the batch
  int split = 1;         // backward: blocks that share a product's K, see persistent_backward.cuh
  bool cluster = false;  // those blocks are a cluster, and reduce in its shared memory
  int directions = 1;    // in one launch
  size_t shared_bytes = 0;  // of a block
};

}  // namespace cuda
}  // namespace fastrnn
