// Which algorithm runs a layer's steps, how it is cut, and why: functions of a problem and facts
// about a device, so that they can be asked about any device anywhere. No CUDA header.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>

#include "../layout.h"
#include "../rnn.h"
#include "persistent/product_shape.h"

namespace fastrnn {
namespace cuda {

// ---- instances ----------------------------------------------------------------------------------

// Which cells an instance is for: LSTM and GRU, or those with one gate.
enum class CellKind { kGated, kUngated };

// How products are computed, a bit for each.
enum Maths : unsigned { k16Bit = 1, kTf32 = 2, kIeee = 4, kAnyMath = 7 };

// How the parts of K that blocks multiply become sums over all of K. kNone: each block has all of
// K. Else, backward: kThroughL2 and kInCluster, four blocks share a tile's K and exchange their
// sums, through L2 or through the shared memory of their cluster; kScatter, every block of the
// group has a part of K, for all tiles (persistent_scatter.cuh).
enum class Reduction { kNone, kThroughL2, kInCluster, kScatter };

// Blocks that share a tile's K, where not all of the group do, and those of a cluster on sm_90.
// Larger clusters leave more multiprocessors without work.
constexpr int kCluster = 4;
constexpr int PartsOfTile(Reduction reduction) {
  return reduction == Reduction::kThroughL2 || reduction == Reduction::kInCluster ? kCluster : 1;
}

// A block multiplies 16 * row_tiles rows of weights by 8 * batch_tiles rows of the batch. With more
// tiles of both there are not the registers for all that is summed and seen. Weights that do not
// fit the chip are streamed from L2 in every step, by instances that have fewer in registers.
struct Instance {
  Pass pass;
  CellKind cells;
  int row_tiles, batch_tiles;
  Reduction reduction;
  bool streams;
  unsigned maths;

  constexpr bool Serves(Pass of_pass, bool gated, Maths math) const {
    return pass == of_pass && (cells == CellKind::kGated) == gated && (maths & math) != 0;
  }
};

// The kernels that there are, for each cell and math: those without which the model's times over a
// grid of devices, cells, maths, sizes and lengths grow the most. Where two cost the same, the
// first is chosen; one that streams also serves where there is nothing to stream.
constexpr Instance kInstances[] = {
    {Pass::kForward, CellKind::kGated, 2, 1, Reduction::kNone, false, kAnyMath},
    {Pass::kForward, CellKind::kGated, 4, 1, Reduction::kNone, false, k16Bit | kTf32},
    {Pass::kForward, CellKind::kGated, 4, 2, Reduction::kNone, false, k16Bit | kTf32},
    {Pass::kForward, CellKind::kGated, 4, 1, Reduction::kNone, true, kTf32 | kIeee},
    {Pass::kForward, CellKind::kGated, 4, 2, Reduction::kNone, true, kAnyMath},
    {Pass::kForward, CellKind::kGated, 4, 4, Reduction::kNone, true, kAnyMath},

    {Pass::kBackward, CellKind::kGated, 1, 1, Reduction::kScatter, false, kAnyMath},
    {Pass::kBackward, CellKind::kGated, 1, 2, Reduction::kScatter, false, kAnyMath},
    {Pass::kBackward, CellKind::kGated, 1, 4, Reduction::kScatter, false, kAnyMath},
    {Pass::kBackward, CellKind::kGated, 2, 1, Reduction::kThroughL2, false, kIeee},
    {Pass::kBackward, CellKind::kGated, 4, 2, Reduction::kThroughL2, false, k16Bit | kTf32},
    {Pass::kBackward, CellKind::kGated, 4, 1, Reduction::kThroughL2, true, kTf32 | kIeee},
    {Pass::kBackward, CellKind::kGated, 4, 2, Reduction::kThroughL2, true, kTf32},
    {Pass::kBackward, CellKind::kGated, 4, 1, Reduction::kInCluster, false, k16Bit},
    {Pass::kBackward, CellKind::kGated, 4, 2, Reduction::kInCluster, false, k16Bit | kTf32},

    {Pass::kForward, CellKind::kUngated, 1, 1, Reduction::kNone, false, kAnyMath},
    {Pass::kForward, CellKind::kUngated, 2, 1, Reduction::kNone, false, k16Bit},
    {Pass::kForward, CellKind::kUngated, 2, 2, Reduction::kNone, false, k16Bit},
    {Pass::kForward, CellKind::kUngated, 2, 1, Reduction::kNone, true, kTf32 | kIeee},
    {Pass::kForward, CellKind::kUngated, 2, 2, Reduction::kNone, true, kTf32 | kIeee},
    {Pass::kForward, CellKind::kUngated, 2, 4, Reduction::kNone, true, kAnyMath},

    {Pass::kBackward, CellKind::kUngated, 1, 1, Reduction::kNone, false, kAnyMath},
    {Pass::kBackward, CellKind::kUngated, 2, 1, Reduction::kNone, false, k16Bit},
    {Pass::kBackward, CellKind::kUngated, 2, 2, Reduction::kNone, false, k16Bit},
    {Pass::kBackward, CellKind::kUngated, 2, 1, Reduction::kNone, true, kTf32 | kIeee},
    {Pass::kBackward, CellKind::kUngated, 2, 2, Reduction::kNone, true, kTf32 | kIeee},
    {Pass::kBackward, CellKind::kUngated, 2, 4, Reduction::kNone, true, kAnyMath},
};

// ---- plans --------------------------------------------------------------------------------------

// How an instance's work is cut. Forward, the rows of weights are the gates of a block's units, as
// many as there is room for; backward they are units of dh, of which a block's own are as many as
// its part of the tile. The blocks of a group have all units of their rows of the batch, and
// exchange only among themselves. Groups that do not fit beside each other are launched one after
// the other.
struct PersistentPlan {
  size_t instance = 0;             // of kInstances
  int units = 1;                   // hidden units of a block
  int blocks = 1;                  // of a group
  int groups = 1;                  // in one launch and direction
  int launches = 1;                // for all rows of the batch
  int directions = 1;              // in one launch
  int shared_slices = kAllSlices;  // the most slices of a warp's weights in shared memory
  int streamed_slices = 0;         // those of a warp that neither registers nor shared memory hold
  size_t streamed_words = 0;       // of a block, 16 bytes each
  size_t shared_bytes = 0;         // of a block

  const Instance& kernel() const { return kInstances[instance]; }
  bool scatters() const { return kernel().reduction == Reduction::kScatter; }
  int tile_parts() const { return PartsOfTile(kernel().reduction); }
  // Blocks that share a product's K.
  int parts_of_k() const { return scatters() ? blocks : tile_parts(); }
  // Blocks of a cluster; 1: there are no clusters.
  int cluster() const { return kernel().reduction == Reduction::kInCluster ? kCluster : 1; }
  int grid_blocks() const { return blocks * groups * directions; }
};

// ---- the choice ---------------------------------------------------------------------------------

struct DeviceFacts {
  int capability = 0;       // 10 * major + minor
  int multiprocessors = 0;  // those that other work leaves free
  size_t shared_bytes = 0;  // the most that a block may have
  // How many of the multiprocessors clusters of kCluster blocks can take, one block on each: where
  // the number of a processing cluster's is no multiple of that, some are left over.
  int cluster_multiprocessors = 0;
  size_t l2_bytes = 0;  // of the L2 cache
  // What the kernels are compiled for, as 10 * major + minor, where that may be less than what the
  // device has: a kernel for newer devices is then empty. 0: they are the device's.
  int code_capability = 0;
  bool cooperative = true;  // whether there are cooperative launches
  // The most blocks that a grid without clusters may have, where a kernel's occupancy allows fewer
  // than one on each multiprocessor.
  int resident_blocks = std::numeric_limits<int>::max();

  // What was measured on the device, for those who ask what the model makes of it; 0: the model's
  // nominal figure. FactsOf leaves them 0: another plan may round otherwise, and the results of a
  // call shall depend on the problem and the device alone, never on a measurement.
  double exchange_us = 0.0;  // from a block's release of a flag to another block's acquire
  double memory_bytes_per_us = 0.0;
  double products_per_us = 0.0;  // multiplications with an addition, of one multiprocessor
  double host_us = 0.0;          // to issue a stepwise step
};

// What a step costs, and all steps, by the model of plan.cc. Figures are of one direction; µs
// of both where they are launched at once.
struct Cost {
  double flops = 0.0;         // a step, 2 for each multiplication and addition
  double l2_bytes = 0.0;      // a step, of all blocks, or from memory what L2 does not keep
  double memory_bytes = 0.0;  // once, the weights
  int synchronizations = 0;   // a step
  double step_us = 0.0;       // the floor
  double total_us = 0.0;      // all steps, directions and launches
};

struct Choice {
  bool persistent = false;
  PersistentPlan plan;  // where persistent
  Cost cost;            // of what was chosen
  std::string reason;
};

// What kernels may do with float32: not TF32 where the device has none.
bool AllowsTf32(bool wanted, const DeviceFacts& facts);

// tf32: whether float32 products may be rounded, on this device. Throws InvalidArgument where
// desc.algorithm asks for what cannot be.
Choice Choose(Pass pass, const LayerDesc& desc, bool tf32, const DeviceFacts& facts);

// ---- chunks of time -----------------------------------------------------------------------------

// Bytes of workspace that the gates of a chunk may take: enough that the products over a chunk run
// at full rate, and far from the 2 GiB that MXNet can give. Emulated builds set it lower, so that
// small tests have chunks too.
#if !defined(FASTRNN_CUDA_CHUNK_BYTES)
#define FASTRNN_CUDA_CHUNK_BYTES (128 << 20)
#endif
constexpr int64_t kChunkBytes = FASTRNN_CUDA_CHUNK_BYTES;

// The most rows that a chunk has; gate_bytes: what its arrays take for each gate of each row.
inline int64_t MaxChunkRows(const LayerDesc& desc, int64_t gate_bytes) {
  return std::max<int64_t>(1, kChunkBytes / (gate_bytes * desc.gate_rows()));
}
inline int64_t ForwardChunkRows(const LayerDesc& desc) { return MaxChunkRows(desc, sizeof(float)); }
inline int64_t BackwardChunkRows(const LayerDesc& desc) {
  return MaxChunkRows(desc, SizeOf(desc.dtype) * (desc.cell().split_shares ? 2 : 1));
}

// Backward, both directions can only run at once where this is so: their chunks come in opposite
// orders, and the second one adds to the dx that the first has written.
inline bool BackwardIsOneChunk(const LayerDesc& desc) {
  return Walk(desc, 0, BackwardChunkRows(desc)).chunk_steps == desc.steps;
}

}  // namespace cuda
}  // namespace fastrnn
