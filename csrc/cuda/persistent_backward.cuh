// All steps of a chunk of time in one launch, backward: the gradients of the gates, and how they
// run back through h. The sums that weights and inputs get are products over the chunk, made
// afterwards.
//
// As in persistent_forward.cuh, blocks own hidden units and rows of the batch, and the blocks of a
// group exchange among themselves. The product is the other way round: dh of a unit is a sum over
// the gates' gradients of all units, K = G * H numbers, and to have every block read all of them
// would cost G times forward's traffic. So kSplit blocks share a tile of 16 * kRowTiles units of
// dh: each multiplies its part of K, hands its sums to the others, and adds up those for its own
// units, the tile's kSplit-th part, in the order of the parts. In a step a block
//
//   1. computes its units' gate gradients, hands them on, and then writes them out,
//   2. waits for its part of K: each warp for those blocks whose units it multiplies,
//   3. multiplies, and hands its sums to the blocks of the tile (where K is split),
//   4. waits for theirs, and has dh.
//
// Steps 3 and 4 are a second exchange, or, on sm_90, stores into the shared memory of a cluster and
// its barrier (kInCluster). There are two exchanges, each with flags of its own: of gate gradients
// among the blocks of the group, and of sums among the blocks of a tile. Both alternate between two
// buffers. That sums of step s are read before those of s + 2 are written, exchange.cuh's argument
// says: all blocks of the tile wait for each other. That gate gradients of step s are: a block that
// writes those of s + 2 has the sums of step s + 1 of all parts, which are made of gate gradients
// that every block of the group published after it had read those of step s.
//
// The grid is blocks of a group x groups x directions.
#pragma once

#include "../rnn.h"
#include "exchange.cuh"
#include "product_float.cuh"
#include "unit.cuh"

namespace fastrnn {
namespace cuda {

template <class T>
struct PersistentBackwardArgs {
  BackwardStep<T> last_step[kMaxDirections];  // of the launch; c_0 and dc_0 are the first step's
  const T* h2h_weight[kMaxDirections];
  bool back[kMaxDirections];  // forward goes back in time
  int steps;
  int first_row;    // of the first group
  T* exchanged;     // [directions][groups][2][chunks][8 * kBatchTiles][values of a chunk], zeros
  float* sums;      // [directions][groups][2][tiles][kSplit][8 * kBatchTiles][16 * kRowTiles]
  unsigned* flags;  // [directions][groups][blocks], zeros
  unsigned* sums_flags;  // [directions][groups][blocks], zeros
  int shared_chunks;     // of the plan
  WeightQuad* streamed;  // [directions][groups][blocks][streamed words]
};

// h2h_weight [G*H, H] as a block's tile of its transpose: row r is the tile's unit r, and K has the
// gates of unit after unit.
template <class T>
struct BackwardWeight {
  const T* weight;
  int gates, first_unit, first_k, hidden;

  FASTRNN_DEVICE T operator()(int row, int k) const {
    const int unit = first_unit + row, from = (first_k + k) / gates, gate = (first_k + k) % gates;
    if (unit >= hidden || from >= hidden) return FromFloat<T>(0.0f);
    return weight[(static_cast<size_t>(gate) * hidden + from) * hidden + unit];
  }
};

template <class Step, class Math, int kRowTiles, int kBatchTiles, int kSplit, bool kInCluster,
          bool kStreams>
class BackwardBlock {
  using T = typename Math::Value;
  static constexpr int kGates = Step::kGates;
  static constexpr int kTileUnits = kTileRows * kRowTiles;
  static constexpr int kUnits = kTileUnits / kSplit;
  static constexpr int kRows = kTileBatch * kBatchTiles;
  static constexpr int kCells = (kUnits * kRows + kProductThreads - 1) / kProductThreads;
  // What a cell has seen takes registers, too, and both gradients where they differ.
  static constexpr int kAheadTiles = AheadTiles(kRowTiles, Step::kSharesDiffer ? 2 : kCells);
  using BlockProduct = StepProduct<Math, kRowTiles, kBatchTiles, kAheadTiles, kStreams>;
  static constexpr int kChunk = BlockProduct::kChunk;

 public:
  FASTRNN_DEVICE BackwardBlock(const PersistentBackwardArgs<T>& args, unsigned char* shared)
      : steps_(args.steps),
        step_(blockIdx.z == 0 ? args.last_step[0] : args.last_step[1]),
        c_0_(step_.c_0),
        to_(blockIdx.z == 0 ? (args.back[0] ? 1 : -1) : (args.back[1] ? 1 : -1)),
        first_unit_(static_cast<int>(blockIdx.x) * kUnits),
        first_row_(args.first_row + static_cast<int>(blockIdx.y) * kRows),
        chunks_(ChunksOfPart(step_.hidden)),
        carver_(shared),
        product_(chunks_, args.shared_chunks, args.streamed, &carver_),
        parts_(kInCluster ? TakeClusterSums(product_.shape(), &carver_) : nullptr),
        exchange_(args.flags + Group() * gridDim.x, static_cast<int>(blockIdx.x)),
        sums_exchange_(args.sums_flags + Group() * gridDim.x, static_cast<int>(blockIdx.x)) {
    step_.c_0 = nullptr;
    buffers_ = args.exchanged + Group() * 2 * BufferValues();
    sums_ = args.sums + Group() * 2 * SumsOfGroup();
    const T* weight = blockIdx.z == 0 ? args.h2h_weight[0] : args.h2h_weight[1];
    product_.LoadWeights(BackwardWeight<T>{weight, kGates, Tile() * kTileUnits,
                                           Part() * chunks_ * kChunk, step_.hidden});
  }

  FASTRNN_DEVICE void Run() {
    if constexpr (kInCluster) ClusterBarrier();  // From now on the others' shared memory is there.
    ForEachCell([this](int i, Place at) {
      dh_[i] = step_.dh_n != nullptr ? ToFloat(step_.dh_n[at.state()]) : step_.dh[at.state()];
      dc_[i] = 0.0f;
      if (!Step::kHasCell) return;
      dc_[i] = step_.dc_n != nullptr ? ToFloat(step_.dc_n[at.state()]) : step_.dc[at.state()];
    });
    Prefetch(0);
    for (int s = 0; s < steps_; ++s) {
      RunStep(s);
      Multiply(s);
    }
    ForEachCell([this](int i, Place at) {
      step_.dh[at.state()] = dh_[i];
      if (!Step::kHasCell) return;
      step_.dc[at.state()] = dc_[i];
      if (step_.dc_0 != nullptr) step_.dc_0[at.state()] = FromFloat<T>(dc_[i]);
    });
  }

 private:
  static FASTRNN_DEVICE size_t Group() { return blockIdx.z * gridDim.y + blockIdx.y; }
  static FASTRNN_DEVICE int Tile() { return static_cast<int>(blockIdx.x) / kSplit; }
  static FASTRNN_DEVICE int Part() { return static_cast<int>(blockIdx.x) % kSplit; }

  static FASTRNN_DEVICE int ChunksOfPart(int hidden) {
    const int chunks = (kGates * hidden + kChunk - 1) / kChunk;
    return (chunks + kSplit - 1) / kSplit;
  }
  FASTRNN_DEVICE size_t BufferValues() const {
    return ExchangedValues(kSplit * chunks_, kBatchTiles, kChunk);
  }
  FASTRNN_DEVICE size_t SumsOfGroup() const {
    return static_cast<size_t>(gridDim.x) * kRows * kTileUnits;
  }

  template <class Body>
  FASTRNN_DEVICE void ForEachCell(const Body& body) const {
#pragma unroll
    for (int i = 0; i < kCells; ++i) {
      const int cell = static_cast<int>(threadIdx.x) + i * kProductThreads;
      const Place at = {first_row_ + cell / kUnits, first_unit_ + cell % kUnits, step_.hidden};
      if (cell < kUnits * kRows && at.row < step_.rows && at.unit < at.hidden) body(i, at);
    }
  }

  // Where the gate gradients of the s-th step of the launch are exchanged.
  FASTRNN_DEVICE T* Buffer(int s) const { return buffers_ + (s % 2 == 0 ? 0 : BufferValues()); }

  // Asks for what the s-th step sees; step_ is that step.
  FASTRNN_DEVICE void Prefetch(int s) {
    if (s == steps_ - 1) step_.c_0 = c_0_;
    ForEachCell([this](int i, Place at) {
      present_[i] = PresenceOf(step_, at);
      if (!present_[i].active) return;
      LoadSeen<Step>(step_, at, present_[i].first, &seen_[i]);
      dy_[i] = ToFloat(step_.dy[at.strided(step_.y_stride)]);
    });
  }

  FASTRNN_DEVICE void RunStep(int s) {
    GateGradients<kGates> d[kCells] = {};
    ForEachCell([&](int i, Place at) {
      if (present_[i].active)
        dh_[i] = Step::Backward(step_, seen_[i], dy_[i] + dh_[i], &dc_[i], &d[i]);
#pragma unroll
      for (int k = 0; k < kGates; ++k) {
        Buffer(s)[BlockProduct::ExchangedIndex(at.unit * kGates + k, at.row - first_row_)] =
            ForExchange<Math>(Step::kSharesDiffer ? d[i].h[k] : d[i].x[k]);
      }
    });
    exchange_.Publish(static_cast<unsigned>(s) + 1);
    ForEachCell([&](int i, Place at) { StoreGradients<Step>(step_, at, present_[i].first, d[i]); });
    if (s + 1 == steps_) return;
    NextStep();
    Prefetch(s + 1);
  }

  // Makes dh, which holds what does not pass the gates, the gradient of the step before.
  FASTRNN_DEVICE void Multiply(int s) {
    const auto round = static_cast<unsigned>(s) + 1;
    const int first = (Part() * chunks_ + product_.first()) * kChunk;
    const int end = (Part() * chunks_ + product_.end()) * kChunk;
    const int units = step_.hidden;
    exchange_.Wait(min(first / kGates, units) / kUnits,
                   (min((end + kGates - 1) / kGates, units) + kUnits - 1) / kUnits, round);
    product_.Multiply(Buffer(s) + Part() * ExchangedValues(chunks_, kBatchTiles, kChunk));
    __syncthreads();
    if constexpr (kSplit == 1) {
      ForEachCell([this](int i, Place at) {
        dh_[i] += product_.Sum(at.unit - first_unit_, at.row - first_row_);
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
        sums_ + (round % 2 == 0 ? 0 : SumsOfGroup()) + static_cast<size_t>(Tile()) * kSplit * kSums;
    for (int i = static_cast<int>(threadIdx.x); i < kSums; i += kProductThreads) {
      tile[Part() * kSums + i] = product_.Sum(i % kTileUnits, i / kTileUnits);
    }
    sums_exchange_.Publish(round);
    sums_exchange_.Wait(Tile() * kSplit, Tile() * kSplit + kSplit, round);
    ForEachCell([&](int i, Place at) {
      const float* own = tile + (at.row - first_row_) * kTileUnits + at.unit - Tile() * kTileUnits;
#pragma unroll
      for (int part = 0; part < kSplit; ++part) dh_[i] += LoadExchanged(own + part * kSums);
    });
  }

  // The sums go straight to where they are needed, in the shared memory of the cluster's blocks.
  // What is written for step s + 2 meets nobody who still reads that of s: the barrier of s + 1
  // stands between. After the last one no block looks at another's memory, so that each may end.
  FASTRNN_DEVICE void AddPartsInCluster(int s) {
    constexpr int kPart = kRows * kUnits;
    float* parts = parts_ + s % 2 * kSplit * kPart;
    for (int i = static_cast<int>(threadIdx.x); i < kPart * kSplit; i += kProductThreads) {
      const int unit = i % kTileUnits, row = i / kTileUnits;
      float* theirs = ClusterShared(parts + Part() * kPart + row * kUnits + unit % kUnits,
                                    static_cast<unsigned>(unit / kUnits));
      *theirs = product_.Sum(unit, row);
    }
    ClusterBarrier();
    ForEachCell([&](int i, Place at) {
      const float* own = parts + (at.row - first_row_) * kUnits + at.unit - first_unit_;
#pragma unroll
      for (int part = 0; part < kSplit; ++part) dh_[i] += own[part * kPart];
    });
  }

  FASTRNN_DEVICE void NextStep() {
    const int64_t states = static_cast<int64_t>(step_.rows) * step_.hidden;
    const int64_t outputs = step_.rows * step_.y_stride;
    step_.time += to_;
    step_.h_prev += to_ * outputs;
    step_.y += to_ * outputs;
    step_.dy += to_ * outputs;
    step_.dgates_x += to_ * states * kGates;
    if (Step::kSharesDiffer) step_.dgates_h += to_ * states * kGates;
    if (kGates == 1) return;
    step_.gates += to_ * states * kGates;
    if (Step::kSharesDiffer) step_.hidden_n += to_ * states;
    if (!Step::kHasCell) return;
    step_.c += to_ * states;
    step_.c_prev += to_ * states;
  }

  const int steps_;
  BackwardStep<T> step_;
  const T* c_0_;
  const int to_;  // the next step in time
  const int first_unit_, first_row_, chunks_;
  SharedCarver carver_;
  BlockProduct product_;
  float* parts_;  // [2][kSplit][kRows][kUnits] of the cluster's sums, those for this block's units
  Exchange exchange_, sums_exchange_;
  T* buffers_;
  float* sums_;
  float dh_[kCells], dc_[kCells], dy_[kCells];
  Seen<kGates> seen_[kCells];
  Presence present_[kCells];
};

template <class Step, class Math, int kRowTiles, int kBatchTiles, int kSplit, bool kInCluster,
          bool kStreams>
__global__ void __launch_bounds__(kProductThreads, 1)
    PersistentBackwardKernel(const PersistentBackwardArgs<typename Math::Value> args) {
  if constexpr (kIsSupported<Math> && (!kInCluster || kHasClusters)) {
    FASTRNN_DYNAMIC_SHARED(shared);
    BackwardBlock<Step, Math, kRowTiles, kBatchTiles, kSplit, kInCluster, kStreams>(args, shared)
        .Run();
  } else {
    Trap();  // heuristics.cc plans with what the kernels are compiled for.
  }
}

}  // namespace cuda
}  // namespace fastrnn
