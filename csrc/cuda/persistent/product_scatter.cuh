// The product of a backward step if the blocks of a group share K, by one of them: the weights
// between the gates of its own units and all units, times the gradients of its own gates.
//
//   D[16 * tiles, 8 * kBatchTiles] = weights[rows, K] * gradients[K, rows of the batch]
//
// Unlike in product.cuh, K, 16 * kGates numbers, is short and belongs to this block alone; the rows
// are many, and the warps share them, tile by tile. So the block adds up no sums, and hands on each
// tile's as they are in registers: four sums of a lane, two units by two neighbouring rows of the
// batch, for each 8 rows. Fragments are as in product.cuh. A warp keeps the weights of its first
// tiles in registers, and those of the others in shared memory.
#pragma once

#include "product_float.cuh"

namespace fastrnn {
namespace cuda {

// Which of a tile's sums: the element of a lane's four.
struct SumPlace {
  int lane, element;
};

// What the products share.
template <class Math, int kGates, int kBatchTiles>
class ScatterProductBase {
 public:
  using Value = typename Math::Value;
  static constexpr int kSliceK = kSliceBytes / sizeof(Value);
  static constexpr int kSlices = ScatterSlices(kGates, sizeof(Value));

  FASTRNN_DEVICE ScatterProductBase(int tiles, SharedCarver* carver)
      : shape_{kBatchTiles, kSlices, tiles, Math::kTensorCores}, memory_(shape_, carver) {
    // Padding stays zero: beyond the gates, the units and the rows of the batch.
    auto* words = static_cast<uint32_t*>(memory_.gradients);
    for (int i = static_cast<int>(threadIdx.x); i < kSlices * kSliceBytes / 4 * Stride();
         i += kProductThreads) {
      words[i] = 0;
    }
  }

  static FASTRNN_DEVICE int Warp() { return static_cast<int>(threadIdx.x) / kWarp; }
  static FASTRNN_DEVICE int Lane() { return static_cast<int>(threadIdx.x) % kWarp; }

  // Of ScatterMemory.
  FASTRNN_DEVICE float* parts() const { return memory_.parts; }

 protected:
  static constexpr int kKept = ScatterShape::RegisterTiles(Math::kTensorCores, kSlices);

  FASTRNN_DEVICE int Stride() const { return shape_.stride(); }

  // The i-th tile of this warp, perhaps beyond the last one.
  static FASTRNN_DEVICE int Tile(int i) { return Warp() + i * kProductWarps; }
  FASTRNN_DEVICE bool Exists(int i) const { return Tile(i) < shape_.tiles; }
  // The weights of the warp's i-th tile in shared memory.
  FASTRNN_DEVICE WeightQuad* Weights(int i) const {
    const int index = Warp() * shape_.shared_tiles_per_warp() + i - kKept;
    return memory_.weights + static_cast<size_t>(index) * kSlices * 2 * kWarp;
  }

  const ScatterShape shape_;
  const ScatterMemory memory_;
};

template <class Math, int kGates, int kBatchTiles>
class ScatterProduct : public ScatterProductBase<Math, kGates, kBatchTiles> {
  using Base = ScatterProductBase<Math, kGates, kBatchTiles>;
  using Base::kKept, Base::Exists, Base::memory_, Base::Tile, Base::Weights;

 public:
  using Base::Base, Base::kSliceK, Base::kSlices, Base::Lane, Base::Warp, Base::parts;
  using typename Base::Value;

  // Sets gradient k along K, of a row of the batch.
  FASTRNN_DEVICE void SetGradient(int k, int row, float gradient) const {
    static_cast<Value*>(
        memory_.gradients)[(k / kSliceK * kBatchTiles * kTileBatch + row) * kSliceK + k % kSliceK] =
        ForExchange<Math>(gradient);
  }

  // weight(tile, row, k) gives the value for any row of any tile, and any k of the slices. Each
  // lane reads back only what it has written.
  template <class Weight>
  FASTRNN_DEVICE void LoadWeights(const Weight& weight) {
#pragma unroll
    for (int i = 0; i < kKept; ++i) {
      if (Exists(i)) LoadTile(weight, Tile(i), kept_[i]);
    }
    for (int i = kKept; Exists(i); ++i) {
      WeightWords words[kSlices];
      LoadTile(weight, Tile(i), words);
      for (int c = 0; c < kSlices; ++c) {
        SharedWords(i, c)[0] = words[c].first;
        SharedWords(i, c)[kWarp] = words[c].second;
      }
    }
  }

  // Where Multiply has the sum of a tile's unit in a row of 8, and the first of a lane's two rows.
  static FASTRNN_DEVICE SumPlace PlaceOf(int unit, int row) {
    return {unit % 8 * 4 + row / 2, unit / 8 * 2 + row % 2};
  }
  static FASTRNN_DEVICE int FirstRow() { return Lane() % 4 * 2; }

  // Calls store(tile, b, sums) with the lane's four sums for the b-th 8 rows. Needs barriers before
  // and after, between this and the setting of gradients.
  template <class Store>
  FASTRNN_DEVICE void Multiply(const Store& store) const {
    uint4 gradients[kKeepsGradients ? kSlices : 1][kBatchTiles];
    if constexpr (kKeepsGradients) {
#pragma unroll
      for (int c = 0; c < kSlices; ++c) LoadGradients(c, gradients[c]);
    }
#pragma unroll
    for (int i = 0; i < kKept; ++i) {
      if (Exists(i)) MultiplyTile(kept_[i], Tile(i), gradients, store);
    }
    for (int i = kKept; Exists(i); ++i) {
      WeightWords words[kSlices];
#pragma unroll
      for (int c = 0; c < kSlices; ++c) {
        words[c] = {SharedWords(i, c)[0], SharedWords(i, c)[kWarp]};
      }
      MultiplyTile(words, Tile(i), gradients, store);
    }
  }

 private:
  FASTRNN_DEVICE uint4* SharedWords(int i, int slice) const {
    return reinterpret_cast<uint4*>(Weights(i)) + slice * 2 * kWarp + Lane();
  }

  template <class Weight>
  static FASTRNN_DEVICE void LoadTile(const Weight& weight, int tile,
                                      WeightWords (&words)[kSlices]) {
    const auto of_tile = [&](int row, int k) { return weight(tile, row, k); };
#pragma unroll
    for (int c = 0; c < kSlices; ++c) words[c] = LoadWeightWords<Math>(of_tile, 0, c);
  }

  FASTRNN_DEVICE void LoadGradients(int slice, uint4 (&words)[kBatchTiles]) const {
#pragma unroll
    for (int b = 0; b < kBatchTiles; ++b) {
      const int row = (slice * kBatchTiles + b) * kTileBatch + Lane() / 4;
      words[b] = *reinterpret_cast<const uint4*>(static_cast<const Value*>(memory_.gradients) +
                                                 row * kSliceK + Lane() % 4 * (kSliceK / 4));
    }
  }

  // gradients: all slices if they are kept, otherwise room for one.
  template <int kRoom, class Store>
  FASTRNN_DEVICE void MultiplyTile(const WeightWords (&weights)[kSlices], int tile,
                                   uint4 (&gradients)[kRoom][kBatchTiles],
                                   const Store& store) const {
    float sums[kBatchTiles][4] = {};
#pragma unroll
    for (int c = 0; c < kSlices; ++c) {
      if constexpr (!kKeepsGradients) LoadGradients(c, gradients[0]);
#pragma unroll
      for (int b = 0; b < kBatchTiles; ++b) {
        MultiplyWords<Math>(sums[b], weights[c], gradients[kKeepsGradients ? c : 0][b]);
      }
    }
#pragma unroll
    for (int b = 0; b < kBatchTiles; ++b) store(tile, b, sums[b]);
  }

  static constexpr bool kKeepsGradients =
      ScatterShape::KeepsGradients(Math::kTensorCores, kSlices, kBatchTiles);

  WeightWords kept_[kKept][kSlices];
};

// In IEEE float32, as in product_float.cuh: weights are [K][16 rows of the tile], and gradients
// [K][rows of the batch].
template <int kGates, int kBatchTiles>
class ScatterProduct<FloatMath, kGates, kBatchTiles>
    : public ScatterProductBase<FloatMath, kGates, kBatchTiles> {
  using Base = ScatterProductBase<FloatMath, kGates, kBatchTiles>;
  using Base::Exists, Base::memory_, Base::Stride, Base::Tile;

 public:
  using Base::Base, Base::kSliceK, Base::kSlices, Base::Lane, Base::Warp, Base::parts;
  using typename Base::Value;

  FASTRNN_DEVICE void SetGradient(int k, int row, float gradient) const {
    Gradients()[k * Stride() + row] = gradient;
  }

  // Needs a barrier after it, because lanes read what others have written.
  template <class Weight>
  FASTRNN_DEVICE void LoadWeights(const Weight& weight) {
    for (int i = 0; Exists(i); ++i) {
      for (int at = Lane(); at < kK * kTileRows; at += kWarp) {
        Weights(i)[at] = weight(Tile(i), at % kTileRows, at / kTileRows);
      }
    }
  }

  static FASTRNN_DEVICE SumPlace PlaceOf(int unit, int row) {
    return {row / 2 * 8 + unit / 2, unit % 2 * 2 + row % 2};
  }
  static FASTRNN_DEVICE int FirstRow() { return Lane() / 8 * 2; }

  template <class Store>
  FASTRNN_DEVICE void Multiply(const Store& store) const {
    const int row = Lane() % 8 * 2, column = FirstRow();
    for (int i = 0; Exists(i); ++i) {
      float sums[1][kBatchTiles][4] = {};
#pragma unroll 4
      for (int k = 0; k < kK; ++k) {
        MultiplyFloats(Weights(i) + k * kTileRows + row, Gradients() + k * Stride() + column, sums);
      }
#pragma unroll
      for (int b = 0; b < kBatchTiles; ++b) store(Tile(i), b, sums[0][b]);
    }
  }

 private:
  static constexpr int kK = kSlices * kSliceK;

  FASTRNN_DEVICE float* Weights(int i) const { return reinterpret_cast<float*>(Base::Weights(i)); }
  FASTRNN_DEVICE float* Gradients() const { return static_cast<float*>(memory_.gradients); }
};

}  // namespace cuda
}  // namespace fastrnn
