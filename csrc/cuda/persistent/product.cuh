// The product of a step, by one block of a persistent kernel: a tile of the recurrent weights,
// which the block keeps on the chip, times an array that the blocks of its group exchange.
//
//   D[16 * kRowTiles, 8 * kBatchTiles] = weights[rows, K] * exchanged[K, rows of the batch]
//
// K is cut into slices of 64 bytes, which the warps share. Each warp multiplies all rows of the
// tile by its own slices; it reads their exchanged part from L2 straight into registers. The warps'
// sums are added up in shared memory, in a fixed order. Which slice belongs to which warp depends
// on K alone, and no row of the batch enters another row's sum, so every split of the batch gives
// the same bits.
//
// An exchanged array is [slices][8 * kBatchTiles][64 bytes], with zeros in the padding. With g =
// lane / 4 and q = lane % 4, a lane reads 16 bytes of row g at q: four words, each one float32 or
// two neighbours of 16 bits. The order along K does not matter to the tensor cores if both factors
// have the same; so words 2i and 2i + 1 are the fragment of the i-th multiplication (word i, if it
// takes one register, on sm_75).
//
// The weights are stored in the same order: as many of a warp's slices as fit in registers, the
// next ones in shared memory, and the rest, if the kernel streams, in global memory. Those are read
// through L2 in every step; the first of them are prefetched a step ahead, since weights do not
// change.
#pragma once

#include "product_words.cuh"

namespace fastrnn {
namespace cuda {

// A tile's place among a warp's sums, for fragments: 16 rows by 8 columns, where a lane has two
// neighbours along one of them.
struct SumTile {
  float* sums;
  const ProductShape& shape;
  int row_tile, batch_tile;

  // Where the sum is that is `row` rows (0, 1 or 8) and `column` columns (0 or 1) beside the lane's
  // first one, whose sum_index in the tile 0, 0 is `first`. In few different addresses and offsets
  // that are constant.
  FASTRNN_DEVICE float* At(int first, int row, int column) const {
    const int flipped = row / 8 * 8 ^ row_tile % 2 * 16 ^ column * 24;
    const int columns = batch_tile * kTileBatch + (shape.row_tiles > 1 ? column : 0);
    return sums + (first ^ flipped) + row % 8 + row_tile / 2 * 32 + columns * shape.rows();
  }
};

// What the products share: shape, memory, and the sum over the warps. kStreams: whether there may
// be slices to stream.
template <class Math, int kRowTiles, int kBatchTiles, bool kStreams>
class TileProductBase {
 public:
  using Value = typename Math::Value;
  static constexpr int kSliceK = kSliceBytes / sizeof(Value);
  static constexpr int kKept = RegisterSlices(Math::kTensorCores, kRowTiles, kBatchTiles, kStreams);

  // shared_slices: of the plan. streamed: global memory for the streamed slices of all blocks of
  // the grid, one block after the other.
  FASTRNN_DEVICE TileProductBase(int slices, int shared_slices, WeightQuad* streamed,
                                 SharedCarver* carver)
      : shape_{kRowTiles,          kBatchTiles, slices,
               Math::kTensorCores, kKept,       kStreams ? shared_slices : kAllSlices},
        memory_(shape_, carver),
        streamed_(kStreams ? streamed + Block() * shape_.streamed_words() : nullptr) {
    if (first() < end()) return;
    for (int i = Lane(); i < shape_.sums(); i += kWarp) OwnSums()[i] = 0.0f;
  }

  FASTRNN_DEVICE const ProductShape& shape() const { return shape_; }

  // This warp's slices: first to end - 1.
  FASTRNN_DEVICE int first() const { return min(Warp() * shape_.slices_per_warp(), shape_.slices); }
  FASTRNN_DEVICE int end() const { return min(first() + shape_.slices_per_warp(), shape_.slices); }

  // The index in an exchanged array of number k along K, of a row of the batch.
  static FASTRNN_DEVICE int ExchangedIndex(int k, int row) {
    return (k / kSliceK * kBatchTiles * kTileBatch + row) * kSliceK + k % kSliceK;
  }

  // A sum over all of K. Needs a barrier after Multiply.
  FASTRNN_DEVICE float Sum(int row, int column) const { return AddWarps<float>(row, column); }
  // Those of four neighbouring rows, the first of which is a multiple of 4.
  FASTRNN_DEVICE float4 SumOfFour(int row, int column) const {
    return AddWarps<float4>(row, column);
  }

 protected:
  static FASTRNN_DEVICE size_t Block() {
    return (static_cast<size_t>(blockIdx.z) * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  }
  static FASTRNN_DEVICE int Warp() { return static_cast<int>(threadIdx.x) / kWarp; }
  static FASTRNN_DEVICE int Lane() { return static_cast<int>(threadIdx.x) % kWarp; }

  FASTRNN_DEVICE float* OwnSums() const { return memory_.sums + Warp() * shape_.sums(); }

  // A warp without slices has zeros, so that all parts are loaded at once, and added pairwise.
  template <class Sums>
  FASTRNN_DEVICE Sums AddWarps(int row, int column) const {
    const float* sums = memory_.sums + shape_.sum_index(row, column);
    Sums parts[kProductWarps];
#pragma unroll
    for (int warp = 0; warp < kProductWarps; ++warp) {
      parts[warp] = *reinterpret_cast<const Sums*>(sums + warp * shape_.sums());
    }
#pragma unroll
    for (int half = kProductWarps / 2; half > 0; half /= 2) {
#pragma unroll
      for (int warp = 0; warp < half; ++warp) parts[warp] = Add(parts[warp], parts[warp + half]);
    }
    return parts[0];
  }
  static FASTRNN_DEVICE float Add(float a, float b) { return a + b; }
  static FASTRNN_DEVICE float4 Add(float4 a, float4 b) {
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
  }

  const ProductShape shape_;
  const ProductMemory memory_;
  WeightQuad* const streamed_;  // as ProductMemory's weights, but of the streamed slices
};

// Tiles of exchanged words that fit in registers beside the sums and the cells of a thread. Code
// for architectures before sm_90 needs more registers.
FASTRNN_HOST_DEVICE constexpr int AheadTiles(int row_tiles, int cells) {
  return row_tiles > 2 ? 4 : cells > 1 || FASTRNN_ARCH < 900 ? 8 : 16;
}

// kAheadTiles: how many tiles of exchanged words, of four registers each, a thread has room for.
template <class Math, int kRowTiles, int kBatchTiles, int kAheadTiles, bool kStreams>
class TileProduct : public TileProductBase<Math, kRowTiles, kBatchTiles, kStreams> {
  using Base = TileProductBase<Math, kRowTiles, kBatchTiles, kStreams>;
  using Base::kKept;
  using Base::Lane, Base::Warp, Base::memory_, Base::shape_, Base::streamed_;

 public:
  using Base::Base, Base::end, Base::first;
  using Base::kSliceK;
  using typename Base::Value;

  // weight(row, k) gives the value for any row of the tile and any k of the slices. Needs a barrier
  // before Multiply.
  template <class Weight>
  FASTRNN_DEVICE void LoadWeights(const Weight& weight) {
#pragma unroll
    for (int c = 0; c < kKept; ++c) {
#pragma unroll
      for (int tile = 0; tile < kRowTiles; ++tile) {
        if (first() + c < end()) kept_[c][tile] = LoadWeightWords<Math>(weight, tile, first() + c);
      }
    }
    for (int c = first() + kKept; c < end(); ++c) {
      for (int tile = 0; tile < kRowTiles; ++tile) {
        const WeightWords words = LoadWeightWords<Math>(weight, tile, c);
        uint4* kept = c < SharedEnd() ? SharedWords(c - first() - kKept, tile)
                                      : StreamedWords(c - SharedEnd(), tile);
        kept[0] = words.first;
        kept[kWarp] = words.second;
      }
    }
    if constexpr (kStreams) LoadNext(SharedEnd());
  }

  // Adds up this warp's sums. The weights need no barrier here: each lane reads back only what it
  // has written.
  FASTRNN_DEVICE void Multiply(const Value* exchanged) {
    MultiplyLoaded([=](int slice, int last, uint4(&words)[kAhead][kBatchTiles]) {
      LoadSlices(exchanged, slice, last, words);
    });
  }

  // The same with an array of words that carry the round's tag, as soon as they do. rows: of the
  // batch, that exist.
  template <class Tagged>
  FASTRNN_DEVICE void MultiplyTagged(const uint32_t* exchanged, unsigned tag, int rows) {
    MultiplyLoaded([=](int slice, int last, uint4(&words)[kAhead][kBatchTiles]) {
      LoadTagged<Tagged>(exchanged, tag, rows, slice, last, words);
    });
  }

 private:
  // load(slice, last, words): as LoadSlices.
  template <class Load>
  FASTRNN_DEVICE void MultiplyLoaded(const Load& load) {
    if (first() == end()) return;
    float sums[kRowTiles][kBatchTiles][4] = {};
    uint4 words[kAhead][kBatchTiles];
    int slice = first();
    // The slices in registers, and those in shared memory that are loaded with them.
    if constexpr (kKept > 0) {
      static_assert(kKept <= kAhead, "they are loaded at once");
      load(slice, SharedEnd(), words);
      While<kAhead>([&](int i) {
        if (first() + i >= SharedEnd()) return false;
        if (i < kKept) {
          MultiplySlice(kept_[i < kKept ? i : 0], words[i], sums);
        } else {
          MultiplyShared(i - kKept, words[i], sums);
        }
        return true;
      });
      slice += kAhead;
    }
    for (; slice < SharedEnd(); slice += kAhead) {
      load(slice, SharedEnd(), words);
      While<kAhead>([&](int i) {
        if (slice + i >= SharedEnd()) return false;
        MultiplyShared(slice + i - first() - kKept, words[i], sums);
        return true;
      });
    }
    if constexpr (kStreams) {
      for (slice = SharedEnd(); slice < end(); slice += kAhead) {
        load(slice, end(), words);
        While<kAhead>([&](int i) {
          if (slice + i >= end()) return false;
          MultiplyStreamed(slice + i, words[i], sums);
          return true;
        });
      }
    }
    StoreSums(sums);
  }

  // Slices whose exchanged words are in flight at once: those in registers, and at least 4 if there
  // is room, so that few layers need a second trip to L2.
  static constexpr int kMostAhead = kKept > 4 ? kKept : 4;
  static constexpr int kAhead = kAheadTiles < kBatchTiles                ? 1
                                : kAheadTiles / kBatchTiles < kMostAhead ? kAheadTiles / kBatchTiles
                                                                         : kMostAhead;

  // The warp's first streamed slice.
  FASTRNN_DEVICE int SharedEnd() const {
    return kStreams ? min(first() + kKept + shape_.shared_slices_per_warp(), end()) : end();
  }

  FASTRNN_DEVICE uint4* SharedWords(int slice, int tile) const {
    const int index = (Warp() * shape_.shared_slices_per_warp() + slice) * kRowTiles + tile;
    return reinterpret_cast<uint4*>(memory_.weights) + index * 2 * kWarp + Lane();
  }
  FASTRNN_DEVICE uint4* StreamedWords(int slice, int tile) const {
    const int index = (Warp() * shape_.streamed_slices_per_warp() + slice) * kRowTiles + tile;
    return reinterpret_cast<uint4*>(streamed_) + index * 2 * kWarp + Lane();
  }

  // Prefetches the weights of a streamed slice, if the warp has it.
  FASTRNN_DEVICE void LoadNext(int slice) {
    if (slice >= end()) return;
#pragma unroll
    for (int tile = 0; tile < kRowTiles; ++tile) {
      const uint4* words = StreamedWords(slice - SharedEnd(), tile);
      next_[tile] = {LoadExchanged16(words), LoadExchanged16(words + kWarp)};
    }
  }

  // Loads kAhead slices, but none from `last` on. All are in flight before the first is used.
  FASTRNN_DEVICE void LoadSlices(const Value* exchanged, int slice, int last,
                                 uint4 (&words)[kAhead][kBatchTiles]) const {
    constexpr int kTile = kTileBatch * kSliceK;
    exchanged += slice * kBatchTiles * kTile + Lane() * (kSliceK / 4);
    While<kAhead>([&](int i) {
      if (slice + i >= last) return false;
#pragma unroll
      for (int tile = 0; tile < kBatchTiles; ++tile) {
        words[i][tile] = LoadExchanged16(exchanged + (i * kBatchTiles + tile) * kTile);
      }
      return true;
    });
  }

  // As LoadSlices. Lanes of rows that do not exist have zeros, and nothing to wait for.
  template <class Tagged>
  FASTRNN_DEVICE void LoadTagged(const uint32_t* exchanged, unsigned tag, int rows, int slice,
                                 int last, uint4 (&words)[kAhead][kBatchTiles]) const {
    constexpr int kTile = kTileBatch * kSliceK;
    exchanged += slice * kBatchTiles * kTile + Lane() / 4 * kSliceK + Lane() % 4 * 4;
    uint4 loaded[kAhead][kBatchTiles][Tagged::kVectors];
#pragma unroll
    for (int i = 0; i < kAhead * kBatchTiles * Tagged::kVectors; ++i) {
      (&loaded[0][0][0])[i] = make_uint4(tag, tag, tag, tag);
    }
    uint32_t wrong;
    do {
      wrong = 0;
      While<kAhead>([&](int i) {
        if (slice + i >= last) return false;
#pragma unroll
        for (int tile = 0; tile < kBatchTiles; ++tile) {
          if (tile * kTileBatch + Lane() / 4 >= rows) continue;
#pragma unroll
          for (int v = 0; v < Tagged::kVectors; ++v) {
            loaded[i][tile][v] =
                LoadTagged16(exchanged + (i * kBatchTiles + tile) * kTile + v * 16);
          }
        }
        return true;
      });
      While<kAhead>([&](int i) {
        if (slice + i >= last) return false;
#pragma unroll
        for (int tile = 0; tile < kBatchTiles; ++tile) {
          words[i][tile] = Tagged::Unpack(loaded[i][tile], tag, &wrong);
        }
        return true;
      });
    } while (!HasArrived(wrong));
  }

  FASTRNN_DEVICE void MultiplyShared(int index, const uint4 (&words)[kBatchTiles],
                                     float (&sums)[kRowTiles][kBatchTiles][4]) const {
    WeightWords weights[kRowTiles];
#pragma unroll
    for (int tile = 0; tile < kRowTiles; ++tile) {
      const uint4* shared = SharedWords(index, tile);
      weights[tile] = {shared[0], shared[kWarp]};
    }
    MultiplySlice(weights, words, sums);
  }

  // While a slice is multiplied, the weights of the next are in flight; the first follows the last.
  FASTRNN_DEVICE void MultiplyStreamed(int slice, const uint4 (&words)[kBatchTiles],
                                       float (&sums)[kRowTiles][kBatchTiles][4]) {
    WeightWords weights[kRowTiles];
#pragma unroll
    for (int tile = 0; tile < kRowTiles; ++tile) weights[tile] = next_[tile];
    LoadNext(slice + 1 < end() ? slice + 1 : SharedEnd());
    MultiplySlice(weights, words, sums);
  }

  FASTRNN_DEVICE static void MultiplySlice(const WeightWords (&weights)[kRowTiles],
                                           const uint4 (&words)[kBatchTiles],
                                           float (&sums)[kRowTiles][kBatchTiles][4]) {
#pragma unroll
    for (int row = 0; row < kRowTiles; ++row) {
#pragma unroll
      for (int column = 0; column < kBatchTiles; ++column) {
        MultiplyWords<Math>(sums[row][column], weights[row], words[column]);
      }
    }
  }

  FASTRNN_DEVICE void StoreSums(const float (&sums)[kRowTiles][kBatchTiles][4]) const {
    const int first = shape_.sum_index(Lane() / 4, Lane() % 4 * 2);
#pragma unroll
    for (int row = 0; row < kRowTiles; ++row) {
#pragma unroll
      for (int column = 0; column < kBatchTiles; ++column) {
        const float (&values)[4] = sums[row][column];
        const SumTile to = {this->OwnSums(), shape_, row, column};
        *to.At(first, 0, 0) = values[0];
        *to.At(first, 0, 1) = values[1];
        *to.At(first, 8, 0) = values[2];
        *to.At(first, 8, 1) = values[3];
      }
    }
  }

  WeightWords kept_[kKept > 0 ? kKept : 1][kRowTiles];
  WeightWords next_[kStreams ? kRowTiles : 1];  // of the slice that is streamed next
};

}  // namespace cuda
}  // namespace fastrnn
