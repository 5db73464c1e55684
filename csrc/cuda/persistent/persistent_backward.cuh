// All steps of a chunk of time in one launch, backward: the gate gradients, and how they flow back
// through h. The gradients of weights and inputs are products over the chunk, computed afterwards.
//
// As in persistent_forward.cuh, blocks own hidden units and rows of the batch, and the blocks of a
// group exchange among themselves. The product is transposed: dh of a unit is a sum over the gate
// gradients of all units, K = G * H numbers. If every block read all of them, that would be G times
// forward's traffic. So kParts blocks share a tile of 16 * kRowTiles units of dh: each multiplies
// its part of K, gives its sums to the others, and adds up those for its own units, which are one
// of kParts parts of the tile, in the order of the parts. (kParts is 1 for cells with one gate,
// whose gradients are as many numbers as h.) In a step a block
//
//   1. computes and publishes its units' gate gradients, and then stores them,
//   2. waits for its part of K: each warp for the blocks whose units it multiplies,
//   3. multiplies, and gives its sums to the blocks of the tile (if they share K),
//   4. waits for theirs, and has dh.
//
// Steps 3 and 4 are a second exchange or, on sm_90, stores into the shared memory of a cluster,
// each of which counts its bytes at the receiver (Reduction::kInCluster, AddPartsInCluster). The
// two exchanges have flags of their own: one for gate gradients among the blocks of the group, one
// for sums among the blocks of a tile. Both alternate between two buffers. Sums of step s are read
// before those of s + 2 are written by exchange.cuh's argument: all blocks of the tile wait for
// each other. So are gate gradients of step s: a block that writes those of s + 2 has the sums of
// step s + 1 of all parts. They are made of gate gradients that every block of the group published
// after it had read those of step s.
//
// The grid is blocks of a group x groups x directions.
#pragma once

#include "../plan.h"
#include "backward_cells.cuh"
#include "exchange.cuh"
#include "product_float.cuh"

namespace fastrnn {
namespace cuda {

template <class Step, class Math, int kRowTiles, int kBatchTiles, Reduction kReduction,
          bool kStreams>
class BackwardBlock {
  using T = typename Math::Value;
  static constexpr int kGates = Step::kGates;
  static constexpr int kTileUnits = kTileRows * kRowTiles;
  static constexpr bool kInCluster = kReduction == Reduction::kInCluster;
  static constexpr int kParts = PartsOfTile(kReduction);
  static constexpr int kUnits = kTileUnits / kParts;
  static constexpr int kRows = kTileBatch * kBatchTiles;
  using Cells = BackwardCells<Step, T, kUnits, kRows>;
  // What a cell reads takes registers, too, and so do both gradients if they differ.
  static constexpr int kAheadTiles = AheadTiles(kRowTiles, Step::kSplitShares ? 2 : Cells::kCells);
  using BlockProduct = TileProduct<Math, kRowTiles, kBatchTiles, kAheadTiles, kStreams>;
  static constexpr int kSliceK = BlockProduct::kSliceK;

 public:
  FASTRNN_DEVICE BackwardBlock(const PersistentBackwardArgs<T>& args, unsigned char* shared)
      : steps_(args.steps),
        cells_(args),
        slices_(SlicesOfPart(cells_.hidden())),
        carver_(shared),
        product_(slices_, args.shared_slices, args.streamed, &carver_),
        cluster_(kInCluster ? ClusterMemory(product_.shape(), &carver_) : ClusterMemory()),
        exchange_(args.flags + Group() * gridDim.x, static_cast<int>(blockIdx.x)),
        sums_exchange_(args.sums_flags + Group() * gridDim.x, static_cast<int>(blockIdx.x)) {
    buffers_ = args.exchanged + Group() * 2 * BufferValues();
    sums_ = args.sums + Group() * 2 * SumsOfGroup();
    const T* weight = blockIdx.z == 0 ? args.h2h_weight[0] : args.h2h_weight[1];
    const int units = cells_.hidden();
    product_.LoadWeights(BackwardWeight<T>{weight, kGates, Tile() * kTileUnits,
                                           Part() * slices_ * kSliceK, kGates * units, units});
  }

  FASTRNN_DEVICE void Run() {
    if constexpr (kInCluster) {
      if (threadIdx.x == 0) {
        InitByteBarrier(cluster_.barriers);
        InitByteBarrier(cluster_.barriers + 1);
      }
      ClusterBarrier();  // All blocks have started, and their barriers are there.
    }
    cells_.Begin();
    for (int s = 0; s < steps_; ++s) {
      RunStep(s);
      Multiply(s);
    }
    cells_.End();
  }

 private:
  static FASTRNN_DEVICE size_t Group() { return blockIdx.z * gridDim.y + blockIdx.y; }
  static FASTRNN_DEVICE int Tile() { return static_cast<int>(blockIdx.x) / kParts; }
  static FASTRNN_DEVICE int Part() { return static_cast<int>(blockIdx.x) % kParts; }

  static FASTRNN_DEVICE int SlicesOfPart(int hidden) {
    const int slices = (kGates * hidden + kSliceK - 1) / kSliceK;
    return (slices + kParts - 1) / kParts;
  }
  FASTRNN_DEVICE size_t BufferValues() const {
    return ExchangedValues(kParts * slices_, kBatchTiles, kSliceK);
  }
  FASTRNN_DEVICE size_t SumsOfGroup() const {
    return static_cast<size_t>(gridDim.x) * kRows * kTileUnits;
  }

  // The buffer of the gate gradients of the launch's s-th step.
  FASTRNN_DEVICE T* Buffer(int s) const { return buffers_ + (s % 2 == 0 ? 0 : BufferValues()); }

  FASTRNN_DEVICE void RunStep(int s) {
    typename Cells::Gradients d = {};
    cells_.Compute(&d, [&](int, Place at, int k, float gradient) {
      Buffer(s)[BlockProduct::ExchangedIndex(at.unit * kGates + k, cells_.RowOf(at))] =
          ForExchange<Math>(gradient);
    });
    exchange_.Publish(static_cast<unsigned>(s) + 1);
    cells_.Store(d, s);
  }

  // Adds the share that passes the gates to dh, which becomes the gradient of the step before.
  FASTRNN_DEVICE void Multiply(int s) {
    const auto round = static_cast<unsigned>(s) + 1;
    const int first = (Part() * slices_ + product_.first()) * kSliceK;
    const int end = (Part() * slices_ + product_.end()) * kSliceK;
    const int units = cells_.hidden();
    exchange_.Wait(min(first / kGates, units) / kUnits,
                   (min((end + kGates - 1) / kGates, units) + kUnits - 1) / kUnits, round);
    product_.Multiply(Buffer(s) + Part() * ExchangedValues(slices_, kBatchTiles, kSliceK));
    __syncthreads();
    if constexpr (kParts == 1) {
      cells_.ForEach([this](int i, Place at) {
        cells_.Add(i, product_.Sum(cells_.UnitOf(at), cells_.RowOf(at)));
      });
    } else if constexpr (kInCluster) {
      AddPartsInCluster(s);
    } else {
      AddParts(round);
    }
  }

  FASTRNN_DEVICE void AddParts(unsigned round) {
    constexpr int kSums = kRows * kTileUnits;
    float* tile =
        sums_ + (round % 2 == 0 ? 0 : SumsOfGroup()) + static_cast<size_t>(Tile()) * kParts * kSums;
    for (int i = static_cast<int>(threadIdx.x); i < kSums; i += kProductThreads) {
      tile[Part() * kSums + i] = product_.Sum(i % kTileUnits, i / kTileUnits);
    }
    sums_exchange_.Publish(round);
    sums_exchange_.Wait(Tile() * kParts, Tile() * kParts + kParts, round);
    cells_.ForEach([&](int i, Place at) {
      const float* own = tile + cells_.RowOf(at) * kTileUnits + at.unit - Tile() * kTileUnits;
#pragma unroll
      for (int part = 0; part < kParts; ++part) cells_.Add(i, LoadExchanged(own + part * kSums));
    });
  }

  // Stores the sums directly where they are needed, in the shared memory of the cluster's blocks,
  // and waits for the bytes of this block. One warp waits: its acquire invalidates the L1 cache,
  // and __syncthreads extends it to the others. Nothing else needs to be ordered, so there is no
  // fence: the sums are handed over in registers.
  //
  // Buffers and barriers alternate. A block's stores of step s + 1 can come before all of step s
  // have arrived; so these two must not share a barrier. Those of s + 2 cannot: their sender has
  // waited for this block's sums of s + 1, which are made of what this block had received, and
  // read, in step s. So the phase of s has ended, and its buffer is free.
  //
  // A block may exit after its last wait. By then all that the others store into it has arrived,
  // and its own stores are to blocks that wait for them.
  FASTRNN_DEVICE void AddPartsInCluster(int s) {
    constexpr int kPart = kRows * kUnits, kFours = kTileUnits / 4;
    float* parts = cluster_.sums + s % 2 * kParts * kPart;
    uint64_t* barrier = cluster_.barriers + s % 2;
    const int rows = cells_.rows();
    if (threadIdx.x == 0) {
      ExpectBytes(barrier, static_cast<unsigned>(rows * kParts * kUnits) * sizeof(float));
    }
    for (int i = static_cast<int>(threadIdx.x); i < rows * kFours; i += kProductThreads) {
      const int unit = i % kFours * 4, row = i / kFours;
      StoreToCluster(parts + Part() * kPart + row * kUnits + unit % kUnits,
                     static_cast<unsigned>(unit / kUnits), product_.SumOfFour(unit, row), barrier);
    }
    if (threadIdx.x < kWarp) WaitForBytes(barrier, static_cast<unsigned>(s / 2 % 2));
    __syncthreads();
    cells_.ForEach([&](int i, Place at) {
      const float* own = parts + cells_.RowOf(at) * kUnits + cells_.UnitOf(at);
#pragma unroll
      for (int part = 0; part < kParts; ++part) cells_.Add(i, own[part * kPart]);
    });
  }

  const int steps_;
  Cells cells_;
  const int slices_;
  SharedCarver carver_;
  BlockProduct product_;
  const ClusterMemory cluster_;
  Exchange exchange_, sums_exchange_;
  T* buffers_;
  float* sums_;
};

template <class Step, class Math, int kRowTiles, int kBatchTiles, Reduction kReduction,
          bool kStreams>
__global__ void __launch_bounds__(kProductThreads, 1)
    PersistentBackwardKernel(const PersistentBackwardArgs<typename Math::Value> args) {
  if constexpr (kIsSupported<Math> && (kReduction != Reduction::kInCluster || kHasClusters)) {
    FASTRNN_DYNAMIC_SHARED(shared);
    BackwardBlock<Step, Math, kRowTiles, kBatchTiles, kReduction, kStreams>(args, shared).Run();
  } else {
    Trap();  // plan.cc does not choose it.
  }
}

}  // namespace cuda
}  // namespace fastrnn
