// Chooses the algorithm that runs a layer's steps and how it is cut, and says why. All of this
// follows from the layer and from facts about a device, so it also plans for GPUs that are not
// there. No CUDA header is included.
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

// How products are computed, one bit each.
enum Maths : unsigned { k16Bit = 1, kTf32 = 2, kIeee = 4, kAnyMath = 7 };

// How blocks that multiply parts of K get sums over all of K. kNone: each block multiplies all of
// K. The others are for backward. kThroughL2 and kInCluster: four blocks share a tile's K and
// exchange their sums, through L2 or through the shared memory of their cluster. kScatter: every
// block of the group multiplies a part of K for all tiles (persistent_scatter.cuh).
enum class Reduction { kNone, kThroughL2, kInCluster, kScatter };

// How a block knows that what it reads of an exchanged array is there. kFlags: each block has a
// flag (exchange.cuh). kTags: each word carries its round (tagged_words.cuh); for products on the
// tensor cores, which leave room in a word.
enum class Signal { kFlags, kTags };

// The blocks that share a tile's K (kThroughL2, kInCluster); on sm_90 they form a cluster. Larger
// clusters would leave more multiprocessors idle.
constexpr int kCluster = 4;
constexpr int PartsOfTile(Reduction reduction) {
  return reduction == Reduction::kThroughL2 || reduction == Reduction::kInCluster ? kCluster : 1;
}

// A block multiplies 16 * row_tiles rows of weights by 8 * batch_tiles rows of the batch. More
// tiles of both would need more registers than there are. Weights that do not fit on the chip are
// streamed from L2 in every step, by instances that keep fewer of them in registers.
struct Instance {
  Pass pass;
  CellKind cells;
  int row_tiles, batch_tiles;
  Reduction reduction;
  bool streams;
  unsigned maths;
  Signal signal = Signal::kFlags;

  constexpr bool Serves(Pass of_pass, bool gated, Maths math) const {
    return pass == of_pass && (cells == CellKind::kGated) == gated && (maths & math) != 0;
  }
};

// The kernels of each cell and math. The model chose them: its times over a grid of devices, cells,
// maths, sizes and lengths grow most without these. Of two that cost the same, the first is taken.
// One that streams also serves layers with nothing to stream.
constexpr Instance kInstances[] = {
    {Pass::kForward, CellKind::kGated, 2, 1, Reduction::kNone, false, kTf32 | kIeee},
    {Pass::kForward, CellKind::kGated, 4, 1, Reduction::kNone, false, k16Bit | kTf32},
    {Pass::kForward, CellKind::kGated, 4, 2, Reduction::kNone, false, k16Bit | kTf32},
    {Pass::kForward, CellKind::kGated, 4, 1, Reduction::kNone, true, kTf32 | kIeee},
    {Pass::kForward, CellKind::kGated, 4, 2, Reduction::kNone, true, kAnyMath},
    {Pass::kForward, CellKind::kGated, 4, 4, Reduction::kNone, true, kAnyMath},
    {Pass::kForward, CellKind::kGated, 4, 1, Reduction::kNone, false, k16Bit | kTf32,
     Signal::kTags},

    {Pass::kBackward, CellKind::kGated, 1, 1, Reduction::kScatter, false, kAnyMath},
    {Pass::kBackward, CellKind::kGated, 1, 2, Reduction::kScatter, false, kAnyMath},
    {Pass::kBackward, CellKind::kGated, 1, 4, Reduction::kScatter, false, kAnyMath},
    {Pass::kBackward, CellKind::kGated, 2, 1, Reduction::kThroughL2, false, kIeee},
    {Pass::kBackward, CellKind::kGated, 4, 2, Reduction::kThroughL2, false, k16Bit | kTf32},
    {Pass::kBackward, CellKind::kGated, 4, 1, Reduction::kThroughL2, true, kTf32 | kIeee},
    {Pass::kBackward, CellKind::kGated, 4, 2, Reduction::kThroughL2, true, kTf32},
    {Pass::kBackward, CellKind::kGated, 4, 1, Reduction::kInCluster, false, k16Bit},
    {Pass::kBackward, CellKind::kGated, 4, 2, Reduction::kInCluster, false, k16Bit | kTf32},

    {Pass::kForward, CellKind::kUngated, 1, 1, Reduction::kNone, false, kIeee},
    {Pass::kForward, CellKind::kUngated, 2, 1, Reduction::kNone, false, k16Bit},
    {Pass::kForward, CellKind::kUngated, 2, 2, Reduction::kNone, false, k16Bit},
    {Pass::kForward, CellKind::kUngated, 2, 1, Reduction::kNone, true, kTf32 | kIeee},
    {Pass::kForward, CellKind::kUngated, 2, 2, Reduction::kNone, true, kTf32 | kIeee},
    {Pass::kForward, CellKind::kUngated, 2, 4, Reduction::kNone, true, kAnyMath},
    {Pass::kForward, CellKind::kUngated, 1, 1, Reduction::kNone, false, k16Bit | kTf32,
     Signal::kTags},

    {Pass::kBackward, CellKind::kUngated, 1, 1, Reduction::kNone, false, kTf32 | kIeee},
    {Pass::kBackward, CellKind::kUngated, 2, 1, Reduction::kNone, false, k16Bit},
    {Pass::kBackward, CellKind::kUngated, 2, 2, Reduction::kNone, false, k16Bit},
    {Pass::kBackward, CellKind::kUngated, 2, 1, Reduction::kNone, true, kTf32 | kIeee},
    {Pass::kBackward, CellKind::kUngated, 2, 2, Reduction::kNone, true, kTf32 | kIeee},
    {Pass::kBackward, CellKind::kUngated, 2, 4, Reduction::kNone, true, kAnyMath},
};

// ---- plans --------------------------------------------------------------------------------------

// How an instance's work is cut. In forward, the rows of weights are the gates of a block's units,
// as many as fit. In backward they are units of dh, and a block owns its part of the tile's units.
// The blocks of a group have all units of their rows of the batch, and exchange only among
// themselves. Groups that do not fit on the device together are launched one after the other.
struct PersistentPlan {
  size_t instance = 0;             // of kInstances
  int units = 1;                   // hidden units of a block
  int blocks = 1;                  // of a group
  int groups = 1;                  // in one launch and direction
  int launches = 1;                // for all rows of the batch
  int directions = 1;              // in one launch
  int shared_slices = kAllSlices;  // the most slices of a warp's weights in shared memory
  int streamed_slices = 0;         // of a warp, beyond registers and shared memory
  size_t streamed_words = 0;       // of a block, 16 bytes each
  size_t shared_bytes = 0;         // of a block

  const Instance& kernel() const { return kInstances[instance]; }
  bool scatters() const { return kernel().reduction == Reduction::kScatter; }
  bool tagged() const { return kernel().signal == Signal::kTags; }
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
  // How many multiprocessors clusters of kCluster blocks can fill, one block on each. Some stay
  // idle if a processing cluster's multiprocessors are not a multiple of kCluster.
  int cluster_multiprocessors = 0;
  size_t l2_bytes = 0;  // of the L2 cache
  // The capability that the kernels are compiled for, as 10 * major + minor. If it is lower than
  // the device's, kernels for newer devices are empty. 0: the device's own.
  int code_capability = 0;
  bool cooperative = true;  // whether there are cooperative launches
  // The most blocks of a grid without clusters, if a kernel's occupancy allows fewer than one on
  // each multiprocessor.
  int resident_blocks = std::numeric_limits<int>::max();

  // Rates measured on the device, for callers that ask what the model makes of them; 0: the model's
  // nominal figure. FactsOf leaves them 0: another plan may round differently, and the results of a
  // call must depend only on the layer and the device, never on a measurement.
  double exchange_us = 0.0;  // from a block's release of a flag to another block's acquire
  double memory_bytes_per_us = 0.0;
  double products_per_us = 0.0;  // multiply-adds of one multiprocessor
  double host_us = 0.0;          // to issue a stepwise step; a launch scales with it
};

// The cost of a step, and of all steps, by cost.cc's model. Figures are for one direction; times
// are for both if they are launched at once.
struct Cost {
  double flops = 0.0;         // of a step, 2 for each multiply-add
  double l2_bytes = 0.0;      // that all blocks read in a step, also what L2 misses
  double memory_bytes = 0.0;  // of the weights, read once
  int synchronizations = 0;   // in a step
  double path_us = 0.0;       // of a step: dependent instructions between exchanges or launches
  double step_us = 0.0;       // estimated
  double total_us = 0.0;      // all steps, directions and launches
};

struct Choice {
  bool persistent = false;
  PersistentPlan plan;  // if persistent
  Cost cost;            // of the chosen algorithm
  std::string reason;
};

// Throws InvalidArgument for a type that the CUDA backend does not have.
void ExpectType(DType dtype);

// Whether float32 products may be rounded to TF32 on this device.
bool AllowsTf32(bool wanted, const DeviceFacts& facts);

// tf32: what AllowsTf32 returned. Throws InvalidArgument if the backend does not have the type, or
// desc.algorithm asks for something that the device cannot run.
Choice Choose(Pass pass, const LayerDesc& desc, bool tf32, const DeviceFacts& facts);

// ---- chunks of time -----------------------------------------------------------------------------

// Bytes of workspace for the gates of a chunk: enough that the products over a chunk run at full
// rate, and far below the 2 GiB that MXNet can grant. Emulated builds set it lower, so that small
// tests have several chunks.
#if !defined(FASTRNN_CUDA_CHUNK_BYTES)
#define FASTRNN_CUDA_CHUNK_BYTES (128 << 20)
#endif
constexpr int64_t kChunkBytes = FASTRNN_CUDA_CHUNK_BYTES;

// The most rows of a chunk. gate_bytes: bytes of the chunk's arrays for each gate of a row.
inline int64_t MaxChunkRows(const LayerDesc& desc, int64_t gate_bytes) {
  return std::max<int64_t>(1, kChunkBytes / (gate_bytes * desc.gate_rows()));
}
inline int64_t ForwardChunkRows(const LayerDesc& desc) { return MaxChunkRows(desc, sizeof(float)); }
inline int64_t BackwardChunkRows(const LayerDesc& desc) {
  const int64_t arrays = (desc.cell().split_shares ? 2 : 1) + (desc.layer_norm ? 1 : 0);
  return MaxChunkRows(desc, SizeOf(desc.dtype) * arrays);
}

// Only then can both directions of backward run at once: they take the chunks in opposite orders,
// and the second adds to the dx that the first has written.
inline bool BackwardIsOneChunk(const LayerDesc& desc) {
  return Walk(desc, 0, BackwardChunkRows(desc)).chunk_steps == desc.steps;
}

}  // namespace cuda
}  // namespace fastrnn
