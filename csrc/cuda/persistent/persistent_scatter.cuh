// Backward with one exchange in a step, a reduce-scatter of sums: every block of a group has a part
// of K. As in persistent_backward.cuh, a block owns 16 hidden units in its rows of the batch. It
// multiplies its own units' gate gradients, which no other block reads, into sums for all units,
// and adds up all blocks' sums for its own. For each row of the batch a block writes 4 * H bytes,
// and reads as many; the gradients of all gates would be G * H numbers. Compared with the other
// kernels, where four blocks share K, it saves the second exchange but moves more bytes: good for
// small layers.
//
// In a step a block
//
//   1. computes its units' gate gradients, into shared memory,
//   2. multiplies them, and writes the sums for each unit's block,
//   3. publishes them, and then stores the gradients,
//   4. waits for all blocks, and adds up the sums for its units. The warps share the other blocks:
//      each waits for its own, and adds up their sums while it loads them, 16 bytes a lane. Then
//      the warps' sums are added up through shared memory.
//
// K is cut at every 16th unit, whatever the device and the batch, and which warp adds up which
// blocks depends on their number alone. So the order of the sums is fixed. Two buffers are enough
// by exchange.cuh's argument: all blocks of the group wait for each other.
//
// The grid is blocks of a group x groups x directions.
#pragma once

#include "backward_cells.cuh"
#include "exchange.cuh"
#include "product_scatter.cuh"

namespace fastrnn {
namespace cuda {

template <class Step, class Math, int kBatchTiles>
class ScatterBlock {
  using T = typename Math::Value;
  static constexpr int kGates = Step::kGates;
  static constexpr int kUnits = kTileRows;  // one tile of every block's product
  static constexpr int kRows = kTileBatch * kBatchTiles;
  static constexpr int kSums = kRows * kUnits;
  using Cells = BackwardCells<Step, T, kUnits, kRows>;
  using Product = ScatterProduct<Math, kGates, kBatchTiles>;

 public:
  FASTRNN_DEVICE ScatterBlock(const PersistentBackwardArgs<T>& args, unsigned char* shared)
      : steps_(args.steps),
        cells_(args),
        carver_(shared),
        product_(Blocks(), &carver_),
        exchange_(args.flags + Group() * gridDim.x, static_cast<int>(blockIdx.x)),
        sums_(args.sums + Group() * 2 * SumsOfGroup()) {
    const T* matrix = blockIdx.z == 0 ? args.h2h_weight[0] : args.h2h_weight[1];
    const int first = cells_.first_unit(), units = cells_.hidden();
    product_.LoadWeights([=](int tile, int row, int k) {
      return BackwardWeight<T>{
          matrix, kGates, tile * kUnits, first * kGates, (first + kUnits) * kGates, units}(row, k);
    });
    __syncthreads();  // The weights are loaded, and the gradients are zeros.
  }

  FASTRNN_DEVICE void Run() {
    cells_.Begin();
    for (int s = 0; s < steps_; ++s) {
      RunStep(s);
      AddUp(s);
    }
    cells_.End();
  }

 private:
  static FASTRNN_DEVICE int Blocks() { return static_cast<int>(gridDim.x); }
  static FASTRNN_DEVICE size_t Group() { return blockIdx.z * gridDim.y + blockIdx.y; }
  static FASTRNN_DEVICE size_t SumsOfGroup() {
    return static_cast<size_t>(gridDim.x) * gridDim.x * kSums;
  }
  // The sums of a block for the units of a tile, in the s-th step: [kBatchTiles][lanes][4], as the
  // product has them in registers.
  FASTRNN_DEVICE float* Sums(int s, int tile, int block) const {
    const size_t part = static_cast<size_t>(tile) * gridDim.x + static_cast<size_t>(block);
    return sums_ + (s % 2 == 0 ? 0 : SumsOfGroup()) + part * kSums;
  }
  // Whether this lane's sums for the b-th 8 rows are those of rows that exist.
  FASTRNN_DEVICE bool HasRows(int b) const {
    return b * kTileBatch + Product::FirstRow() < cells_.rows();
  }

  FASTRNN_DEVICE void RunStep(int s) {
    typename Cells::Gradients d = {};
    cells_.Compute(&d, [this](int, Place at, int k, float gradient) {
      product_.SetGradient(cells_.UnitOf(at) * kGates + k, cells_.RowOf(at), gradient);
    });
    __syncthreads();
    product_.Multiply([this, s](int tile, int b, const float (&sums)[4]) {
      if (!HasRows(b)) return;
      StoreExchanged16(
          Sums(s, tile, static_cast<int>(blockIdx.x)) + (b * kWarp + Product::Lane()) * 4,
          make_uint4(__float_as_uint(sums[0]), __float_as_uint(sums[1]), __float_as_uint(sums[2]),
                     __float_as_uint(sums[3])));
    });
    exchange_.Publish(static_cast<unsigned>(s) + 1);
    cells_.Store(d, s);
  }

  // Adds the share that passes the gates to dh, which becomes the gradient of the step before.
  FASTRNN_DEVICE void AddUp(int s) {
    const int blocks_per_warp = (Blocks() + kProductWarps - 1) / kProductWarps;
    const int first = min(Product::Warp() * blocks_per_warp, Blocks());
    const int end = min(first + blocks_per_warp, Blocks());
    exchange_.Wait(first, end, static_cast<unsigned>(s) + 1);
    if (first < end) AddBlocks(Sums(s, static_cast<int>(blockIdx.x), 0), first, end);
    __syncthreads();
    const int warps = (Blocks() + blocks_per_warp - 1) / blocks_per_warp;
    cells_.ForEach([&](int i, Place at) {
      const int row = cells_.RowOf(at);
      const SumPlace place = Product::PlaceOf(cells_.UnitOf(at), row % kTileBatch);
      const float* own = Parts(0, row / kTileBatch, place.lane) + place.element;
      float parts[kProductWarps];
#pragma unroll
      for (int warp = 0; warp < kProductWarps; ++warp) {
        if (warp < warps) parts[warp] = own[warp * kSums];
      }
#pragma unroll
      for (int warp = 0; warp < kProductWarps; ++warp) {
        if (warp < warps) cells_.Add(i, parts[warp]);
      }
    });
  }

  // Adds up what blocks first to end - 1 have for this block's units, in their order, as this
  // warp's part.
  FASTRNN_DEVICE void AddBlocks(const float* sums, int first, int end) {
    float added[kBatchTiles][4] = {};
    for (int block = first; block < end; block += kAtOnce) {
      uint4 loaded[kAtOnce][kBatchTiles] = {};
      While<kAtOnce>([&](int k) {
        if (block + k >= end) return false;
#pragma unroll
        for (int b = 0; b < kBatchTiles; ++b) {
          if (!HasRows(b)) continue;
          loaded[k][b] =
              LoadExchanged16(sums + (block + k) * kSums + (b * kWarp + Product::Lane()) * 4);
        }
        return true;
      });
      While<kAtOnce>([&](int k) {
        if (block + k >= end) return false;
#pragma unroll
        for (int b = 0; b < kBatchTiles; ++b) AddFour(loaded[k][b], added[b]);
        return true;
      });
    }
#pragma unroll
    for (int b = 0; b < kBatchTiles; ++b) {
      *reinterpret_cast<float4*>(Parts(Product::Warp(), b, Product::Lane())) =
          make_float4(added[b][0], added[b][1], added[b][2], added[b][3]);
    }
  }

  // A warp's part of a lane's sums, in shared memory. Lanes are swapped so that neither these
  // stores nor the loads by unit have bank conflicts.
  FASTRNN_DEVICE float* Parts(int warp, int b, int lane) const {
    return product_.parts() + ((warp * kBatchTiles + b) * kWarp + (lane ^ lane / 8)) * 4;
  }
  static FASTRNN_DEVICE void AddFour(uint4 words, float (&sums)[4]) {
    sums[0] += __uint_as_float(words.x);
    sums[1] += __uint_as_float(words.y);
    sums[2] += __uint_as_float(words.z);
    sums[3] += __uint_as_float(words.w);
  }

  static constexpr int kAtOnce = 8 / kBatchTiles;  // blocks whose loads are in flight

  const int steps_;
  Cells cells_;
  SharedCarver carver_;
  Product product_;
  Exchange exchange_;
  float* const sums_;
};

template <class Step, class Math, int kBatchTiles>
__global__ void __launch_bounds__(kProductThreads, 1)
    PersistentScatterKernel(const PersistentBackwardArgs<typename Math::Value> args) {
  if constexpr (kIsSupported<Math>) {
    FASTRNN_DYNAMIC_SHARED(shared);
    ScatterBlock<Step, Math, kBatchTiles>(args, shared).Run();
  } else {
    Trap();  // plan.cc does not choose it.
  }
}

}  // namespace cuda
}  // namespace fastrnn
