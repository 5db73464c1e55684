// The product of a step in IEEE float32, which the tensor cores do not have. As in product.cuh, but
// the weights are stored as they are multiplied, [16 along K][rows], in shared memory or streamed;
// and each warp stages a slice of the exchanged array in shared memory, [16 along K][rows of the
// batch].
#pragma once

#include "product.cuh"

namespace fastrnn {
namespace cuda {

// Multiplies one value along K. The lane's sums are two neighbouring rows by two neighbouring
// columns of each tile.
template <int kRowTiles, int kBatchTiles>
FASTRNN_DEVICE void MultiplyFloats(const float* weights, const float* staged,
                                   float (&sums)[kRowTiles][kBatchTiles][4]) {
  float2 columns[kBatchTiles];
#pragma unroll
  for (int tile = 0; tile < kBatchTiles; ++tile) {
    columns[tile] = *reinterpret_cast<const float2*>(staged + tile * kTileBatch);
  }
#pragma unroll
  for (int row = 0; row < kRowTiles; ++row) {
    const float2 rows = *reinterpret_cast<const float2*>(weights + row * kTileRows);
#pragma unroll
    for (int tile = 0; tile < kBatchTiles; ++tile) {
      float (&sum)[4] = sums[row][tile];
      sum[0] = fmaf(rows.x, columns[tile].x, sum[0]);
      sum[1] = fmaf(rows.x, columns[tile].y, sum[1]);
      sum[2] = fmaf(rows.y, columns[tile].x, sum[2]);
      sum[3] = fmaf(rows.y, columns[tile].y, sum[3]);
    }
  }
}

template <int kRowTiles, int kBatchTiles, int kAheadTiles, bool kStreams>
class TileProduct<FloatMath, kRowTiles, kBatchTiles, kAheadTiles, kStreams>
    : public TileProductBase<FloatMath, kRowTiles, kBatchTiles, kStreams> {
  using Base = TileProductBase<FloatMath, kRowTiles, kBatchTiles, kStreams>;
  using Base::Lane, Base::Warp, Base::memory_, Base::shape_, Base::streamed_;

 public:
  using Base::Base, Base::end, Base::first;
  using Base::kSliceK;
  using typename Base::Value;

  template <class Weight>
  FASTRNN_DEVICE void LoadWeights(const Weight& weight) {
    for (int slice = first(); slice < SharedEnd(); ++slice) {
      LoadSlice(weight, slice, SharedWeights() + (slice - first()) * kSliceFloats);
    }
    for (int slice = SharedEnd(); slice < end(); ++slice) {
      LoadSlice(weight, slice, StreamedWeights() + (slice - SharedEnd()) * kSliceFloats);
    }
  }

  // Two loops, so that the compiler knows which memory the weights are in.
  FASTRNN_DEVICE void Multiply(const Value* exchanged) {
    if (first() == end()) return;
    float sums[kRowTiles][kBatchTiles][4] = {};
    uint4 words[kBatchTiles];
    LoadWords(exchanged, first(), words);
    const float* weights = SharedWeights() + Lane() % 8 * 2;
    for (int slice = first(); slice < SharedEnd(); ++slice, weights += kSliceFloats) {
      MultiplySlice(exchanged, slice, weights, words, sums);
    }
    if constexpr (kStreams) {
      weights = StreamedWeights() + Lane() % 8 * 2;
      for (int slice = SharedEnd(); slice < end(); ++slice, weights += kSliceFloats) {
        MultiplySlice(exchanged, slice, weights, words, sums);
      }
    }
    StoreSums(sums);
  }

 private:
  static constexpr int kSliceFloats = kSliceK * kTileRows * kRowTiles;

  // The warp's first streamed slice.
  FASTRNN_DEVICE int SharedEnd() const {
    return kStreams ? min(first() + shape_.shared_slices_per_warp(), end()) : end();
  }
  FASTRNN_DEVICE float* SharedWeights() const {
    return reinterpret_cast<float*>(memory_.weights) +
           Warp() * shape_.shared_slices_per_warp() * kSliceFloats;
  }
  // Lanes read streamed weights that other lanes of the warp have written: the barrier after
  // LoadWeights orders that, and they share a cache.
  FASTRNN_DEVICE float* StreamedWeights() const {
    return reinterpret_cast<float*>(streamed_) +
           Warp() * shape_.streamed_slices_per_warp() * kSliceFloats;
  }
  FASTRNN_DEVICE float* Staged() const {
    return memory_.stage + Warp() * kSliceK * shape_.stage_stride();
  }

  template <class Weight>
  FASTRNN_DEVICE void LoadSlice(const Weight& weight, int slice, float* to) const {
    for (int i = Lane(); i < kSliceFloats / 4; i += kWarp) {
      const int row = i % shape_.rows(), k = i / shape_.rows() * 4;
      const uint4 words = RowWords<FloatMath>(weight, row, slice * kSliceK + k);
      to[k * shape_.rows() + row] = __uint_as_float(words.x);
      to[(k + 1) * shape_.rows() + row] = __uint_as_float(words.y);
      to[(k + 2) * shape_.rows() + row] = __uint_as_float(words.z);
      to[(k + 3) * shape_.rows() + row] = __uint_as_float(words.w);
    }
  }

  // Loads the lane's words of a slice of the exchanged array.
  FASTRNN_DEVICE void LoadWords(const Value* exchanged, int slice,
                                uint4 (&words)[kBatchTiles]) const {
    constexpr int kTile = kTileBatch * kSliceK;
    exchanged += slice * kBatchTiles * kTile + Lane() * 4;
#pragma unroll
    for (int tile = 0; tile < kBatchTiles; ++tile) {
      words[tile] = LoadExchanged16(exchanged + tile * kTile);
    }
  }

  FASTRNN_DEVICE void Stage(const uint4 (&words)[kBatchTiles]) const {
#pragma unroll
    for (int tile = 0; tile < kBatchTiles; ++tile) {
      float* to =
          Staged() + Lane() % 4 * 4 * shape_.stage_stride() + tile * kTileBatch + Lane() / 4;
      to[0] = __uint_as_float(words[tile].x);
      to[shape_.stage_stride()] = __uint_as_float(words[tile].y);
      to[2 * shape_.stage_stride()] = __uint_as_float(words[tile].z);
      to[3 * shape_.stage_stride()] = __uint_as_float(words[tile].w);
    }
  }

  // Multiplies the slice whose words are given, and replaces them by the next slice's, which are in
  // flight meanwhile.
  FASTRNN_DEVICE void MultiplySlice(const Value* exchanged, int slice, const float* weights,
                                    uint4 (&words)[kBatchTiles],
                                    float (&sums)[kRowTiles][kBatchTiles][4]) const {
    Stage(words);
    __syncwarp();
    if (slice + 1 < end()) LoadWords(exchanged, slice + 1, words);
    const float* staged = Staged() + Lane() / 8 * 2;
#pragma unroll
    for (int k = 0; k < kSliceK; ++k) {
      MultiplyFloats(weights + k * shape_.rows(), staged + k * shape_.stage_stride(), sums);
    }
    __syncwarp();  // The next slice is staged in the same place.
  }

  FASTRNN_DEVICE void StoreSums(const float (&sums)[kRowTiles][kBatchTiles][4]) const {
    const int first = shape_.sum_index(Lane() % 8 * 2, Lane() / 8 * 2);
#pragma unroll
    for (int row = 0; row < kRowTiles; ++row) {
#pragma unroll
      for (int tile = 0; tile < kBatchTiles; ++tile) {
        const float (&values)[4] = sums[row][tile];
        const SumTile to = {this->OwnSums(), shape_, row, tile};
        *reinterpret_cast<float2*>(to.At(first, 0, 0)) = make_float2(values[0], values[2]);
        *reinterpret_cast<float2*>(to.At(first, 0, 1)) = make_float2(values[1], values[3]);
      }
    }
  }
};

}  // namespace cuda
}  // namespace fastrnn
