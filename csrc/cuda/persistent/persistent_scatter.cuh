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
//   4. waits for all blocks, and adds up the sums for its units, in the order of the blocks.
//
// K is cut at every 16th unit, whatever the device and the batch, and so the order of the sums is
// fixed. Two buffers are enough by exchange.cuh's argument: all blocks of the group wait for each
// other.
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
  // The sums of a block for the units of a tile, in the s-th step: [rows][units].
  FASTRNN_DEVICE float* Sums(int s, int tile, int block) const {
    const size_t part = static_cast<size_t>(tile) * gridDim.x + static_cast<size_t>(block);
    return sums_ + (s % 2 == 0 ? 0 : SumsOfGroup()) + part * kSums;
  }

  FASTRNN_DEVICE void RunStep(int s) {
    typename Cells::Gradients d = {};
    cells_.Compute(&d, [this](int, Place at, int k, float gradient) {
      product_.SetGradient(cells_.UnitOf(at) * kGates + k, cells_.RowOf(at), gradient);
    });
    __syncthreads();
    product_.Multiply([this, s](int tile, int unit, int row, float sum) {
      if (row >= cells_.rows()) return;
      Sums(s, tile, static_cast<int>(blockIdx.x))[row * kUnits + unit] = sum;
    });
    exchange_.Publish(static_cast<unsigned>(s) + 1);
    cells_.Store(d, s);
  }

  // Adds the share that passes the gates to dh, which becomes the gradient of the step before.
  FASTRNN_DEVICE void AddUp(int s) {
    exchange_.Wait(0, Blocks(), static_cast<unsigned>(s) + 1);
    const float* sums = Sums(s, static_cast<int>(blockIdx.x), 0);
    cells_.ForEach([&](int i, Place at) {
      const float* own = sums + cells_.RowOf(at) * kUnits + cells_.UnitOf(at);
      int block = 0;
      for (; block + kAtOnce <= Blocks(); block += kAtOnce) {
        float parts[kAtOnce];
#pragma unroll
        for (int k = 0; k < kAtOnce; ++k) parts[k] = LoadExchanged(own + (block + k) * kSums);
#pragma unroll
        for (int k = 0; k < kAtOnce; ++k) cells_.Add(i, parts[k]);
      }
      for (; block < Blocks(); ++block) cells_.Add(i, LoadExchanged(own + block * kSums));
    });
  }

  static constexpr int kAtOnce = 8;  // loads in flight

  const int steps_;
  Cells cells_;
  SharedCarver carver_;
  ScatterProduct<Math, kGates, kBatchTiles> product_;
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
