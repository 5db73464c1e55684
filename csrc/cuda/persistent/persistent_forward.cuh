// All steps of a chunk of time in one launch, forward.
//
// A block owns some hidden units, with all their gates, and some rows of the batch. It keeps its
// rows of the recurrent weights on the chip (product.cuh) and h and c of its units in registers,
// and exchanges h with the blocks of its group (exchange.cuh). In a step it
//
//   1. loads the input's share of its pre-activations,
//   2. waits for h: each warp for the blocks whose units it multiplies,
//   3. multiplies, and adds up the sums of its warps,
//   4. computes its units and publishes the new h, and only then stores the results.
//
// The grid is blocks of a group x groups x directions.
#pragma once

#include "../../rnn.h"
#include "../unit.cuh"
#include "exchange.cuh"
#include "product_float.cuh"

namespace fastrnn {
namespace cuda {

template <class T>
struct PersistentForwardArgs {
  ForwardStep<T> first_step[kMaxDirections];  // of the launch, but with the last step's c_n
  const T* h2h_weight[kMaxDirections];
  bool back[kMaxDirections];  // in time, if reverse
  int steps;
  int first_row;      // of the first group
  T* exchanged;       // [directions][groups][2][slices][8 * kBatchTiles][values of a slice], zeros
  unsigned* flags;    // [directions][groups][blocks], zeros
  int shared_slices;  // of the plan
  WeightQuad* streamed;  // [directions][groups][blocks][streamed words]
};

// h2h_weight [G*H, H] as a block's tile: row k * units + u is gate k of the block's unit u.
template <class T>
struct ForwardWeight {
  const T* weight;
  int gates, units, first_unit, hidden;

  FASTRNN_DEVICE T operator()(int row, int k) const {
    const int gate = row / units, unit = first_unit + row % units;
    if (gate >= gates || unit >= hidden || k >= hidden) return FromFloat<T>(0.0f);
    return weight[(static_cast<size_t>(gate) * hidden + unit) * hidden + k];
  }
};

template <class Step, class Math, int kRowTiles, int kBatchTiles, bool kStreams>
class ForwardBlock {
  using T = typename Math::Value;
  static constexpr int kGates = Step::kGates;
  static constexpr int kUnits = kTileRows * kRowTiles / kGates;
  static constexpr int kRows = kTileBatch * kBatchTiles;
  static constexpr int kCells = (kUnits * kRows + kProductThreads - 1) / kProductThreads;
  static constexpr int kAheadTiles = AheadTiles(kRowTiles, kCells);
  using BlockProduct = TileProduct<Math, kRowTiles, kBatchTiles, kAheadTiles, kStreams>;
  static constexpr int kSliceK = BlockProduct::kSliceK;

 public:
  FASTRNN_DEVICE ForwardBlock(const PersistentForwardArgs<T>& args, unsigned char* shared)
      : steps_(args.steps),
        step_(blockIdx.z == 0 ? args.first_step[0] : args.first_step[1]),
        back_(blockIdx.z == 0 ? args.back[0] : args.back[1]),
        first_unit_(static_cast<int>(blockIdx.x) * kUnits),
        first_row_(args.first_row + static_cast<int>(blockIdx.y) * kRows),
        slices_((step_.hidden + kSliceK - 1) / kSliceK),
        carver_(shared),
        product_(slices_, args.shared_slices, args.streamed, &carver_),
        biases_(TakeBiases(kGates, kUnits, &carver_)),
        exchange_(args.flags + Group() * gridDim.x, static_cast<int>(blockIdx.x)) {
    buffers_ = args.exchanged + Group() * 2 * ExchangedValues(slices_, kBatchTiles, kSliceK);
    const T* weight = blockIdx.z == 0 ? args.h2h_weight[0] : args.h2h_weight[1];
    product_.LoadWeights(ForwardWeight<T>{weight, kGates, kUnits, first_unit_, step_.hidden});
    for (int i = static_cast<int>(threadIdx.x); i < kGates * kUnits; i += kProductThreads) {
      const Place at = {0, first_unit_ + i % kUnits, step_.hidden};
      if (at.unit >= at.hidden) continue;
      biases_[i] = ToFloat(step_.i2h_bias[at.bias(i / kUnits)]);
      biases_[kGates * kUnits + i] = ToFloat(step_.h2h_bias[at.bias(i / kUnits)]);
    }
  }

  FASTRNN_DEVICE void Run() {
    ForEachCell([this](int i, Place at) {
      state_[i] = PreviousState<Step>(step_, at);
      PutState(at, state_[i].h, 0);
    });
    exchange_.Publish(1);
    for (int s = 0; s < steps_; ++s) {
      if (s > 0) NextStep();
      RunStep(s);
    }
    ForEachCell([this](int i, Place at) { StoreState<Step>(step_, at, state_[i]); });
  }

 private:
  static FASTRNN_DEVICE size_t Group() { return blockIdx.z * gridDim.y + blockIdx.y; }

  // Neighbours in a warp have neighbouring units of one row.
  template <class Body>
  FASTRNN_DEVICE void ForEachCell(const Body& body) const {
#pragma unroll
    for (int i = 0; i < kCells; ++i) {
      const int cell = static_cast<int>(threadIdx.x) + i * kProductThreads;
      const Place at = {first_row_ + cell / kUnits, first_unit_ + cell % kUnits, step_.hidden};
      if (cell < kUnits * kRows && at.row < step_.rows && at.unit < at.hidden) body(i, at);
    }
  }

  // The buffer of the h that step s reads.
  FASTRNN_DEVICE T* Buffer(unsigned s) const {
    return buffers_ + (s % 2 == 0 ? 0 : ExchangedValues(slices_, kBatchTiles, kSliceK));
  }

  FASTRNN_DEVICE void PutState(Place at, float h, unsigned s) const {
    Buffer(s)[BlockProduct::ExchangedIndex(at.unit, at.row - first_row_)] = ForExchange<Math>(h);
  }

  FASTRNN_DEVICE void RunStep(int s) {
    Shares<kGates> shares[kCells] = {};
    bool active[kCells] = {};
    ForEachCell([&](int i, Place at) {
      active[i] = IsActive(step_, at);
#pragma unroll
      for (int k = 0; k < kGates; ++k) {
        shares[i].input[k] = step_.input_sum[at.template gate<kGates>(k)];
      }
    });
    Multiply(static_cast<unsigned>(s));
    __syncthreads();
    Activated<kGates> activated[kCells];
    T y[kCells] = {};
    ForEachCell([&](int i, Place at) {
      const int row = at.row - first_row_, unit = at.unit - first_unit_;
#pragma unroll
      for (int k = 0; k < kGates; ++k) {
        const int gate = k * kUnits + unit;
        shares[i].input[k] += biases_[gate];
        shares[i].hidden[k] = biases_[kGates * kUnits + gate] + product_.Sum(gate, row);
      }
      y[i] = Advance<Step>(step_, active[i], shares[i], &state_[i], &activated[i]);
      if (s + 1 < steps_) PutState(at, state_[i].h, static_cast<unsigned>(s) + 1);
    });
    if (s + 1 < steps_) exchange_.Publish(static_cast<unsigned>(s) + 2);
    ForEachCell([&](int i, Place at) {
      step_.y[at.strided(step_.y_stride)] = y[i];
      if (active[i]) StoreActivated<Step>(step_, at, activated[i]);
      if (Step::kHasC && step_.gates != nullptr) step_.c[at.state()] = state_[i].c;
    });
  }

  // Multiplies the h of the s-th step, after waiting for what the warp needs of it.
  FASTRNN_DEVICE void Multiply(unsigned s) {
    const int first = product_.first() * kSliceK, end = min(product_.end() * kSliceK, step_.hidden);
    exchange_.Wait(first / kUnits, (end + kUnits - 1) / kUnits, s + 1);
    product_.Multiply(Buffer(s));
  }

  // Only the fields that Run and RunStep still read.
  FASTRNN_DEVICE void NextStep() {
    const int64_t states = static_cast<int64_t>(step_.rows) * step_.hidden;
    const int64_t to = back_ ? -1 : 1;
    step_.time += to;
    step_.input_sum += to * states * kGates;
    step_.y += to * step_.rows * step_.y_stride;
    if (step_.gates == nullptr) return;
    step_.gates += to * states * kGates;
    if (Step::kSplitShares) step_.hidden_n += to * states;
    if (Step::kHasC) step_.c += to * states;
  }

  const int steps_;
  ForwardStep<T> step_;
  const bool back_;
  const int first_unit_, first_row_, slices_;
  SharedCarver carver_;
  BlockProduct product_;
  float* const biases_;
  Exchange exchange_;
  T* buffers_;
  UnitState state_[kCells];
};

template <class Step, class Math, int kRowTiles, int kBatchTiles, bool kStreams>
__global__ void __launch_bounds__(kProductThreads, 1)
    PersistentForwardKernel(const PersistentForwardArgs<typename Math::Value> args) {
  if constexpr (kIsSupported<Math>) {
    FASTRNN_DYNAMIC_SHARED(shared);
    ForwardBlock<Step, Math, kRowTiles, kBatchTiles, kStreams>(args, shared).Run();
  } else {
    Trap();  // plan.cc does not choose it.
  }
}

}  // namespace cuda
}  // namespace fastrnn
