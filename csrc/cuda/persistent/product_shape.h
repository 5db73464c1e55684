// How a block's product is cut, and where its factors are in shared memory. No CUDA header is
// included: the host also plans for devices that are not there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "../../cells/math.h"
#include "../runtime/shared_carver.h"

namespace fastrnn {
namespace cuda {

// No limit on slices.
constexpr int kAllSlices = std::numeric_limits<int>::max();

// The most rounds of a launch whose words are tagged (tagged_words.cuh): TF32 has 13 bits to spare.
constexpr unsigned kMostTag = (1u << 13) - 1;

// ---- the product of a step, product.cuh ---------------------------------------------------------

// Emulated builds with ThreadSanitizer have fewer: it gives every thread more than a megabyte.
#if !defined(FASTRNN_PRODUCT_WARPS)
#define FASTRNN_PRODUCT_WARPS 8
#endif
constexpr int kProductWarps = FASTRNN_PRODUCT_WARPS;
constexpr int kProductThreads = kProductWarps * 32;
constexpr int kSliceBytes = 64;
constexpr int kTileRows = 16;
constexpr int kTileBatch = 8;
constexpr int kFloatSliceK = kSliceBytes / sizeof(float);

// Slices of the weights that each warp keeps in registers, 64 of each thread. A kernel that streams
// needs half of those registers for the slice in flight or, with many sums, all.
FASTRNN_HOST_DEVICE constexpr int RegisterSlices(bool tensor_cores, int row_tiles, int batch_tiles,
                                                 bool streams) {
  if (!tensor_cores) return 0;
  return !streams ? 8 / row_tiles : batch_tiles < 4 ? 4 / row_tiles : 0;
}

// A product of a tile of weights with K in slices.
struct ProductShape {
  int row_tiles, batch_tiles, slices;
  bool tensor_cores;
  int register_slices;
  int most_shared_slices;  // of a warp

  FASTRNN_HOST_DEVICE int rows() const { return kTileRows * row_tiles; }
  FASTRNN_HOST_DEVICE int columns() const { return kTileBatch * batch_tiles; }
  FASTRNN_HOST_DEVICE int slices_per_warp() const {
    return (slices + kProductWarps - 1) / kProductWarps;
  }
  // Warps that have slices.
  FASTRNN_HOST_DEVICE int active_warps() const {
    return (slices + slices_per_warp() - 1) / slices_per_warp();
  }
  FASTRNN_HOST_DEVICE int shared_slices_per_warp() const {
    const int others = slices_per_warp() - register_slices;
    return others < 0 ? 0 : others < most_shared_slices ? others : most_shared_slices;
  }
  FASTRNN_HOST_DEVICE int streamed_slices_per_warp() const {
    const int streamed = slices_per_warp() - register_slices - shared_slices_per_warp();
    return streamed > 0 ? streamed : 0;
  }
  // Words of weights in shared memory, 16 bytes each.
  FASTRNN_HOST_DEVICE size_t shared_words() const {
    return static_cast<size_t>(kProductWarps * shared_slices_per_warp() * row_tiles) * 64;
  }
  // Words of weights that a block streams.
  FASTRNN_HOST_DEVICE size_t streamed_words() const {
    return static_cast<size_t>(kProductWarps * streamed_slices_per_warp() * row_tiles) * 64;
  }
  // Where a sum is in its warp's sums, which are [columns][rows] with the rows of a column
  // permuted: so both a warp's stores, in product.cuh's fragments, and its loads, cell by cell, are
  // spread over the banks (tests/gpu/test_banks.py counts).
  FASTRNN_HOST_DEVICE int sum_index(int row, int column) const {
    const int odd = row_tiles > 1 ? 24 : 8;
    return (column * rows() + row) ^ (column & 1) * odd ^ (column & 2) * 8 ^ (column & 4) * 2;
  }
  // Numbers of a warp's sums.
  FASTRNN_HOST_DEVICE int sums() const { return columns() * rows(); }
  // The distance between values along K that FloatMath stages. It is 2 more than a multiple of 8,
  // also for the banks.
  FASTRNN_HOST_DEVICE int stage_stride() const { return columns() + 2; }
};

// Four words of weights.
struct alignas(16) WeightQuad {
  uint32_t words[4];
};

// A product's shared memory. On the host, the carver computes its size.
struct ProductMemory {
  WeightQuad* weights;  // [warps][shared slices][row tiles][2][lanes], or of FloatMath floats
                        // [warps][shared slices][16 along K][rows]
  float* sums;          // [warps][columns][rows], in sum_index's order
  float* stage;         // FloatMath: [warps][16 along K][stage_stride]

  FASTRNN_HOST_DEVICE ProductMemory(const ProductShape& shape, SharedCarver* carver) {
    weights = carver->Take<WeightQuad>(shape.shared_words());
    sums = carver->Take<float>(static_cast<size_t>(kProductWarps * shape.sums()));
    const int staged = kProductWarps * kFloatSliceK * shape.stage_stride();
    stage = shape.tensor_cores ? nullptr : carver->Take<float>(static_cast<size_t>(staged));
  }
};

// A product in which every block has a part of K, the gates of its own 16 units, for all tiles of
// 16 rows (product_scatter.cuh). The warps share the tiles.
struct ScatterShape {
  int batch_tiles, slices, tiles;
  bool tensor_cores;

  // Tiles that a warp keeps in registers, 64 of each thread.
  static FASTRNN_HOST_DEVICE constexpr int RegisterTiles(bool tensor_cores, int slices) {
    return tensor_cores ? 8 / slices : 0;
  }
  // Whether a thread has registers for all gradients that it multiplies, 4 for each slice and tile.
  static FASTRNN_HOST_DEVICE constexpr bool KeepsGradients(bool tensor_cores, int slices,
                                                           int batch_tiles) {
    return tensor_cores && slices * batch_tiles <= 4;
  }
  FASTRNN_HOST_DEVICE bool keeps_gradients() const {
    return KeepsGradients(tensor_cores, slices, batch_tiles);
  }
  FASTRNN_HOST_DEVICE int columns() const { return kTileBatch * batch_tiles; }
  FASTRNN_HOST_DEVICE int shared_tiles_per_warp() const {
    const int all = (tiles + kProductWarps - 1) / kProductWarps;
    const int others = all - RegisterTiles(tensor_cores, slices);
    return others < 0 ? 0 : others;
  }
  // Words of weights in shared memory, 16 bytes each.
  FASTRNN_HOST_DEVICE size_t shared_words() const {
    return static_cast<size_t>(kProductWarps * shared_tiles_per_warp() * slices) * 64;
  }
  // The distance between 4 bytes along K, in rows of the batch. IEEE float32 stores rows side by
  // side, with 2 more to spread them over the banks.
  FASTRNN_HOST_DEVICE int stride() const { return tensor_cores ? columns() : columns() + 2; }
};
// Slices of a block's K.
FASTRNN_HOST_DEVICE constexpr int ScatterSlices(int gates, size_t value_bytes) {
  return (kTileRows * gates * static_cast<int>(value_bytes) + kSliceBytes - 1) / kSliceBytes;
}

struct ScatterMemory {
  WeightQuad* weights;  // [warps][shared tiles][slices][2][lanes], or of IEEE float32 floats
                        // [warps][tiles][slices][16 along K][16 rows]
  void* gradients;      // [slices][columns][64 bytes], or of IEEE float32 [16 * slices][stride]
  float* parts;         // [warps][batch tiles][lanes][4]: the sums of the blocks that a warp reads

  FASTRNN_HOST_DEVICE ScatterMemory(const ScatterShape& shape, SharedCarver* carver) {
    weights = carver->Take<WeightQuad>(shape.shared_words());
    gradients = carver->Take<uint32_t>(
        static_cast<size_t>(shape.slices * (kSliceBytes / 4) * shape.stride()));
    parts = carver->Take<float>(static_cast<size_t>(kProductThreads * shape.batch_tiles * 4));
  }
};

// What the blocks of a cluster store in each other's shared memory.
struct ClusterMemory {
  float* sums = nullptr;         // [2][parts][8 * batch_tiles][units]
  uint64_t* barriers = nullptr;  // [2], of device.cuh's barriers of bytes

  ClusterMemory() = default;
  FASTRNN_HOST_DEVICE ClusterMemory(const ProductShape& shape, SharedCarver* carver) {
    sums = carver->Take<float>(static_cast<size_t>(2 * shape.columns() * shape.rows()));
    barriers = carver->Take<uint64_t>(2);
  }
};

// Values that a group exchanges in a round.
FASTRNN_HOST_DEVICE size_t ExchangedValues(int slices, int batch_tiles, int slice_values) {
  return static_cast<size_t>(slices) * static_cast<size_t>(batch_tiles * kTileBatch) *
         static_cast<size_t>(slice_values);
}

}  // namespace cuda
}  // namespace fastrnn
