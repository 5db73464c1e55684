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
    for (int slice = first(); slice < end(); ++slice) {
      float* shared = Weights(slice);
      for (int i = Lane(); i < kSliceK * shape_.rows(); i += kWarp) {
        shared[i] = weight(i % shape_.rows(), slice * kSliceK + i / shape_.rows());
      }
    }
  }

  FASTRNN_DEVICE void Multiply(const Value* exchanged) {
    if (first() == end()) return;
    float sums[kRowTiles][kBatchTiles][4] = {};
    for (int slice = first(); slice < end(); ++slice) {
      Stage(exchanged, slice);
      const float* weights = Weights(slice) + Lane() % 8 * 2;
      const float* staged = Staged() + Lane() / 8 * 2;
#pragma unroll 4
      for (int k = 0; k < kSliceK; ++k) {
        MultiplyFloats(weights + k * shape_.rows(), staged + k * shape_.stage_stride(), sums);
      }
      __syncwarp();  // The next slice is staged in the same place.
    }
    StoreSums(sums);
  }

 private:
  // Lanes read streamed weights that other lanes of the warp have written: the barrier after
  // LoadWeights orders that, and they share a cache.
  FASTRNN_DEVICE float* Weights(int slice) const {
    const int own = slice - first(), shared = shape_.shared_slices_per_warp();
    if (kStreams && own >= shared) {
      const int index = Warp() * shape_.streamed_slices_per_warp() + own - shared;
      return reinterpret_cast<float*>(streamed_) + index * kSliceK * shape_.rows();
    }
    return reinterpret_cast<float*>(memory_.weights) +
           (Warp() * shared + own) * kSliceK * shape_.rows();
  }
  FASTRNN_DEVICE float* Staged() const {
    return memory_.stage + Warp() * kSliceK * shape_.stage_stride();
  }

  FASTRNN_DEVICE void Stage(const Value* exchanged, int slice) const {
    const int k = Lane() % 4 * 4;
#pragma unroll
    for (int tile = 0; tile < kBatchTiles; ++tile) {
      const int column = tile * kTileBatch + Lane() / 4;
      const uint4 words =
          LoadExchanged16(exchanged + (slice * shape_.columns() + column) * kSliceK + k);
      float* to = Staged() + k * shape_.stage_stride() + column;
      to[0] = __uint_as_float(words.x);
      to[shape_.stage_stride()] = __uint_as_float(words.y);
      to[2 * shape_.stage_stride()] = __uint_as_float(words.z);
      to[3 * shape_.stage_stride()] = __uint_as_float(words.w);
    }
    __syncwarp();
  }

  FASTRNN_DEVICE void StoreSums(const float (&sums)[kRowTiles][kBatchTiles][4]) const {
#pragma unroll
    for (int row = 0; row < kRowTiles; ++row) {
#pragma unroll
      for (int tile = 0; tile < kBatchTiles; ++tile) {
        float* at =
            this->OwnSums(row * kTileRows + Lane() % 8 * 2, tile * kTileBatch + Lane() / 8 * 2);
        const float (&values)[4] = sums[row][tile];
        *reinterpret_cast<float2*>(at) = make_float2(values[0], values[2]);
        *reinterpret_cast<float2*>(at + shape_.sum_stride()) = make_float2(values[1], values[3]);
      }
    }
  }
};

}  // namespace cuda
}  // namespace fastrnn
