// The product of a step, by one block of a persistent kernel: a tile of the recurrent weights, which
// the block keeps on the chip, times what the blocks of its group exchange.
//
//   D[16 * kRowTiles, 8 * kBatchTiles] = weights[rows, K] * exchanged[K, rows of the batch]
//
// K is cut into chunks of 64 bytes. The warps share the chunks: each multiplies all rows of the tile
// by its own chunks, whose exchanged part it reads straight into registers, and the warps' sums are
// added up in shared memory, in a fixed order. Which chunk belongs to which warp depends on K alone,
// and no row of the batch takes part in another's sum: the same bits come out for every split of the
// batch.
//
// An exchanged array is [chunks][8 * kBatchTiles][64 bytes], zero in what is no value and no row.
// With g = lane / 4 and q = lane % 4, a lane reads 16 bytes of row g at q: four words, a word being
// one float32 or two neighbours in 16 bits. Along K the tensor cores do not care for the order, as
// long as both factors have the same, so that words 2i and 2i + 1 serve as the fragment of the i-th
// multiplication (words w of the w-th where it takes one register, on sm_75).
//
// The weights' words stand in the same order: as many chunks as fit in registers, the others in
// shared memory.
#pragma once

#include "device.cuh"

namespace fastrnn {
namespace cuda {

constexpr int kProductWarps = 8;
constexpr int kProductThreads = kProductWarps * kWarp;
constexpr int kChunkBytesOfK = 64;
constexpr int kTileRows = 16;
constexpr int kTileBatch = 8;

// How products are computed; Value is the type of weights and exchanged numbers.
struct HalfMath {
  using Value = Half;
  static constexpr bool kTensorCores = true;
};
struct Bfloat16Math {
  using Value = Bfloat16;
  static constexpr bool kTensorCores = true;
};
struct Tf32Math {
  using Value = float;
  static constexpr bool kTensorCores = true;
};
// IEEE float32.
struct FloatMath {
  using Value = float;
  static constexpr bool kTensorCores = false;
};

// Chunks of the weights that each warp has in registers: 64 registers of each thread.
constexpr int RegisterChunks(bool tensor_cores, int row_tiles) {
  return tensor_cores ? 8 / row_tiles : 0;
}

// What a block's product takes of shared memory, for host and device. K has `chunks` chunks.
struct ProductShape {
  int row_tiles, batch_tiles, chunks;
  bool tensor_cores;

  __host__ __device__ int rows() const { return kTileRows * row_tiles; }
  __host__ __device__ int columns() const { return kTileBatch * batch_tiles; }
  __host__ __device__ int chunks_per_warp() const {
    return (chunks + kProductWarps - 1) / kProductWarps;
  }
  // Warps that have chunks.
  __host__ __device__ int active_warps() const {
    return (chunks + chunks_per_warp() - 1) / chunks_per_warp();
  }
  __host__ __device__ int shared_chunks_per_warp() const {
    const int kept = RegisterChunks(tensor_cores, row_tiles);
    return chunks_per_warp() > kept ? chunks_per_warp() - kept : 0;
  }
  // From a row of a warp's sums to the next: 8 or 24 more than a multiple of 32, so that the eight
  // rows that a warp writes at once lie in different banks.
  __host__ __device__ int sum_stride() const {
    return columns() + (columns() % 16 == 0 ? 8 : 0);
  }
  // From a value along K to the next in what FloatMath stages: 2 more than a multiple of 8, also
  // for the banks.
  __host__ __device__ int stage_stride() const { return columns() + 2; }
};

constexpr int kFloatChunk = kChunkBytesOfK / sizeof(float);

struct ProductMemory {
  uint4* weights;  // [warps][shared chunks][row tiles][2][lanes], or of FloatMath floats
                   // [warps][shared chunks][16 along K][rows]
  float* sums;     // [active warps][rows][sum_stride]
  float* stage;    // FloatMath: [warps][16 along K][stage_stride]

  __host__ __device__ ProductMemory(const ProductShape& shape, SharedCarver* carver) {
    const size_t tiles = static_cast<size_t>(kProductWarps) * shape.shared_chunks_per_warp() *
                         static_cast<size_t>(shape.row_tiles);
    weights = carver->Take<uint4>(tiles * 2 * kWarp);
    sums = carver->Take<float>(static_cast<size_t>(shape.active_warps()) * shape.rows() *
                               shape.sum_stride());
    stage = shape.tensor_cores ? nullptr
                               : carver->Take<float>(static_cast<size_t>(kProductWarps) *
                                                     kFloatChunk * shape.stage_stride());
  }
};

// Four words of weights of a row, and of the row 8 below.
struct WeightWords {
  uint32_t low[4], high[4];
};

FASTRNN_DEVICE uint32_t Word(Half first, Half second) {
  return static_cast<uint32_t>(__half_as_ushort(second)) << 16 | __half_as_ushort(first);
}
FASTRNN_DEVICE uint32_t Word(Bfloat16 first, Bfloat16 second) {
  return static_cast<uint32_t>(second.bits) << 16 | first.bits;
}

// ---- a tile on the tensor cores, in one warp ----------------------------------------------------

#if FASTRNN_ARCH >= 800
FASTRNN_DEVICE void Mma(HalfMath, float (&sums)[4], const uint32_t (&a)[4],
                        const uint32_t (&b)[2]) {
  MmaF16M16N8K16(sums, a, b, sums);
}
FASTRNN_DEVICE void Mma(Bfloat16Math, float (&sums)[4], const uint32_t (&a)[4],
                        const uint32_t (&b)[2]) {
  MmaBf16M16N8K16(sums, a, b, sums);
}
FASTRNN_DEVICE void Mma(Tf32Math, float (&sums)[4], const uint32_t (&a)[4],
                        const uint32_t (&b)[2]) {
  MmaTf32M16N8K8(sums, a, b, sums);
}
template <class Math>
FASTRNN_DEVICE void MultiplyWords(float (&sums)[4], const WeightWords& weights, uint4 exchanged) {
  Mma(Math(), sums, {weights.low[0], weights.high[0], weights.low[1], weights.high[1]},
      {exchanged.x, exchanged.y});
  Mma(Math(), sums, {weights.low[2], weights.high[2], weights.low[3], weights.high[3]},
      {exchanged.z, exchanged.w});
}
#elif FASTRNN_ARCH >= 750
template <class Math>
FASTRNN_DEVICE void MultiplyWords(float (&sums)[4], const WeightWords& weights, uint4 exchanged) {
  const uint32_t words[4] = {exchanged.x, exchanged.y, exchanged.z, exchanged.w};
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    MmaF16M16N8K8(sums, {weights.low[w], weights.high[w]}, {words[w]}, sums);
  }
}
#endif

// A word of weights from its K: weight(k) gives the value, zero outside the matrix.
template <class Math, class Weight>
FASTRNN_DEVICE uint32_t WeightWord(const Weight& weight, int k) {
  if constexpr (sizeof(typename Math::Value) == 2) {
    return Word(weight(k), weight(k + 1));
  } else {
    return ToTf32(weight(k));
  }
}

template <class Math, int kRowTiles, int kBatchTiles>
class Product {
 public:
  using Value = typename Math::Value;
  static constexpr int kChunk = kChunkBytesOfK / sizeof(Value);

  FASTRNN_DEVICE Product(int chunks, SharedCarver* carver)
      : shape_{kRowTiles, kBatchTiles, chunks, true}, memory_(shape_, carver) {}

  // This warp's chunks: first to end - 1.
  FASTRNN_DEVICE int first() const { return min(Warp() * shape_.chunks_per_warp(), shape_.chunks); }
  FASTRNN_DEVICE int end() const {
    return min(first() + shape_.chunks_per_warp(), shape_.chunks);
  }

  // weight(row, k), for any row of the tile and any k of the chunks.
  template <class Weight>
  FASTRNN_DEVICE void LoadWeights(const Weight& weight) {
#pragma unroll
    for (int c = 0; c < kKept; ++c) {
#pragma unroll
      for (int tile = 0; tile < kRowTiles; ++tile) {
        if (first() + c < end()) kept_[c][tile] = Words(weight, tile, first() + c);
      }
    }
    for (int c = first() + kKept; c < end(); ++c) {
      for (int tile = 0; tile < kRowTiles; ++tile) {
        const WeightWords words = Words(weight, tile, c);
        uint4* shared = SharedWords(c - first() - kKept, tile);
        shared[0] = make_uint4(words.low[0], words.low[1], words.low[2], words.low[3]);
        shared[kWarp] = make_uint4(words.high[0], words.high[1], words.high[2], words.high[3]);
      }
    }
  }

  // This warp's share, into the warp's sums. Each lane reads back what it has written, and no
  // other: no barrier is needed for the weights.
  FASTRNN_DEVICE void Multiply(const Value* exchanged) {
    if (first() == end()) return;
    float sums[kRowTiles][kBatchTiles][4] = {};
#pragma unroll
    for (int c = 0; c < kKept; c += kAhead) {
      uint4 words[kAhead][kBatchTiles];
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        if (first() + c + i < end()) LoadChunk(exchanged, first() + c + i, words[i]);
      }
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        if (first() + c + i < end()) MultiplyChunk(kept_[c + i], words[i], sums);
      }
    }
    for (int c = first() + kKept; c < end(); ++c) {
      uint4 words[kBatchTiles];
      LoadChunk(exchanged, c, words);
      WeightWords weights[kRowTiles];
#pragma unroll
      for (int tile = 0; tile < kRowTiles; ++tile) {
        const uint4* shared = SharedWords(c - first() - kKept, tile);
        const uint4 low = shared[0], high = shared[kWarp];
        weights[tile] = {{low.x, low.y, low.z, low.w}, {high.x, high.y, high.z, high.w}};
      }
      MultiplyChunk(weights, words, sums);
    }
    StoreSums(sums);
  }

  // A sum over all of K, once a barrier stands behind Multiply.
  FASTRNN_DEVICE float Sum(int row, int column) const {
    const int stride = shape_.rows() * shape_.sum_stride();
    const float* sums = memory_.sums + row * shape_.sum_stride() + column;
    float sum = sums[0];
    for (int warp = 1; warp < shape_.active_warps(); ++warp) sum += sums[warp * stride];
    return sum;
  }

 private:
  static constexpr int kKept = RegisterChunks(true, kRowTiles);
  // Chunks whose exchanged words are on their way at once.
  static constexpr int kAhead = kKept * kBatchTiles <= 16 ? kKept : 16 / kBatchTiles;

  static FASTRNN_DEVICE int Warp() { return static_cast<int>(threadIdx.x) / kWarp; }
  static FASTRNN_DEVICE int Lane() { return static_cast<int>(threadIdx.x) % kWarp; }

  FASTRNN_DEVICE uint4* SharedWords(int chunk, int tile) const {
    const int index = (Warp() * shape_.shared_chunks_per_warp() + chunk) * kRowTiles + tile;
    return memory_.weights + index * 2 * kWarp + Lane();
  }

  template <class Weight>
  FASTRNN_DEVICE static WeightWords Words(const Weight& weight, int tile, int chunk) {
    WeightWords words;
    const int row = tile * kTileRows + Lane() / 4;
    const int k = chunk * kChunk + Lane() % 4 * (kChunk / 4);
    const auto low = [&](int at) { return weight(row, at); };
    const auto high = [&](int at) { return weight(row + 8, at); };
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      words.low[w] = WeightWord<Math>(low, k + w * (kChunk / 16));
      words.high[w] = WeightWord<Math>(high, k + w * (kChunk / 16));
    }
    return words;
  }

  FASTRNN_DEVICE static void LoadChunk(const Value* exchanged, int chunk,
                                       uint4 (&words)[kBatchTiles]) {
#pragma unroll
    for (int tile = 0; tile < kBatchTiles; ++tile) {
      const int row = (chunk * kBatchTiles + tile) * kTileBatch + Lane() / 4;
      words[tile] = LoadExchanged(exchanged + row * kChunk + Lane() % 4 * (kChunk / 4));
    }
  }

  FASTRNN_DEVICE static void MultiplyChunk(const WeightWords (&weights)[kRowTiles],
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
    float* own = memory_.sums + Warp() * shape_.rows() * shape_.sum_stride();
#pragma unroll
    for (int row = 0; row < kRowTiles; ++row) {
#pragma unroll
      for (int column = 0; column < kBatchTiles; ++column) {
        float* at = own + (row * kTileRows + Lane() / 4) * shape_.sum_stride() +
                    column * kTileBatch + Lane() % 4 * 2;
        const float(&values)[4] = sums[row][column];
        *reinterpret_cast<float2*>(at) = make_float2(values[0], values[1]);
        *reinterpret_cast<float2*>(at + 8 * shape_.sum_stride()) =
            make_float2(values[2], values[3]);
      }
    }
  }

  ProductShape shape_;
  ProductMemory memory_;
  WeightWords kept_[kKept][kRowTiles];
};

}  // namespace cuda
}  // namespace fastrnn
