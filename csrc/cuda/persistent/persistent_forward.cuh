// All steps of a chunk of time in one launch, forward.
//
// A block owns some hidden units, with all their gates, and some rows of the batch. It keeps its
// rows of the recurrent weights on the chip (product.cuh) and h and c of its units in registers,
// and exchanges h with the blocks of its group (exchange.cuh or tagged_words.cuh). In a step it
//
//   1. loads the input's share of its pre-activations,
//   2. waits for h: each warp for the blocks whose units it multiplies,
//   3. multiplies, and adds up the sums of its warps,
//   4. computes its units and publishes the new h, and only then stores the results.
//
// The grid is blocks of a group x groups x directions.
#pragma once

#include "../../rnn.h"
#include "../plan.h"
#include "../unit.cuh"
#include "exchange.cuh"
#include "product_float.cuh"
#include "tagged_words.cuh"

namespace fastrnn {
namespace cuda {

// From a step's arrays to the next step's, in values: back in time they are negative.
struct ForwardStrides {
  int64_t states, gates, y;
};

template <class T>
struct PersistentForwardArgs {
  ForwardStep<T> first_step[kMaxDirections];  // of the launch, but with the last step's c_n
  ForwardStrides strides[kMaxDirections];
  const T* h2h_weight[kMaxDirections];
  bool back[kMaxDirections];  // in time, if reverse
  int steps;
  int first_row;  // of the first group
  // [directions][groups][2][slices][8 * kBatchTiles][values of a slice], zeros; or as many tagged
  // words, whose order in a slice is another
  T* exchanged;
  unsigned* flags;       // [directions][groups][blocks], zeros
  int shared_slices;     // of the plan
  WeightQuad* streamed;  // [directions][groups][blocks][streamed words]
};

// h2h_weight [G*H, H] as a block's tile: the gates of its units, with zeros in the rows beyond.
// Four gates of a unit are neighbours, so that their sums are loaded at once; three would have bank
// conflicts then.
template <class T, int kGates, int kUnits>
struct ForwardWeight {
  const T* weight;
  int first_unit, hidden;

  static FASTRNN_DEVICE int Row(int gate, int unit) {
    return kGates == 4 ? unit * kGates + gate : gate * kUnits + unit;
  }

  FASTRNN_DEVICE T operator()(int row, int k) const {
    const T* from = At(row, k);
    return from == nullptr ? FromFloat<T>(0.0f) : *from;
  }

  // Whether all rows begin at multiples of 16 bytes: then 16 bytes from one on are all inside the
  // matrix, or all outside.
  FASTRNN_DEVICE bool aligned() const {
    return (reinterpret_cast<uintptr_t>(weight) | static_cast<size_t>(hidden) * sizeof(T)) % 16 ==
           0;
  }
  FASTRNN_DEVICE uint4 Load16(int row, int k) const {
    const T* from = At(row, k);
    return from == nullptr ? make_uint4(0, 0, 0, 0) : *reinterpret_cast<const uint4*>(from);
  }

 private:
  // Null outside the matrix.
  FASTRNN_DEVICE const T* At(int row, int k) const {
    const int gate = kGates == 4 ? row % kGates : row / kUnits;
    const int unit = first_unit + (kGates == 4 ? row / kGates : row % kUnits);
    if (gate >= kGates || unit >= hidden || k >= hidden) return nullptr;
    return weight + (static_cast<size_t>(gate) * hidden + unit) * hidden + k;
  }
};
template <class T, int kGates, int kUnits>
constexpr bool kLoads16<ForwardWeight<T, kGates, kUnits>> = true;

// Threads for the units of a row: a power of two, some of them idle, so that a warp reads the sums
// of few rows and has few bank conflicts; but not if threads had more rows then.
constexpr int LanesOfUnits(int units, int rows) {
  const auto passes = [rows](int lanes) {
    return (rows + kProductThreads / lanes - 1) / (kProductThreads / lanes);
  };
  int lanes = 1;
  while (lanes < units) lanes *= 2;
  return lanes <= kProductThreads && passes(lanes) == passes(units) ? lanes : units;
}

template <class Step, class Math, int kRowTiles, int kBatchTiles, bool kStreams, Signal kSignal>
class ForwardBlock {
  using T = typename Math::Value;
  static constexpr int kGates = Step::kGates;
  static constexpr int kUnits = kTileRows * kRowTiles / kGates;
  static constexpr int kRows = kTileBatch * kBatchTiles;
  // Lanes are spread over units first. A thread has one unit in every kRowStep-th row.
  static constexpr int kLanes = LanesOfUnits(kUnits, kRows);
  static constexpr int kRowStep = kProductThreads / kLanes;
  static constexpr int kCells = (kRows + kRowStep - 1) / kRowStep;
  static constexpr int kAheadTiles = AheadTiles(kRowTiles, kCells);
  using BlockProduct = TileProduct<Math, kRowTiles, kBatchTiles, kAheadTiles, kStreams>;
  static constexpr int kSliceK = BlockProduct::kSliceK;
  using Weight = ForwardWeight<T, kGates, kUnits>;
  static constexpr bool kTagged = kSignal == Signal::kTags;
  using Tagged = TaggedWords<Math>;
  // What an exchanged array consists of.
  using Exchanged = std::conditional_t<kTagged, uint32_t, T>;

 public:
  FASTRNN_DEVICE ForwardBlock(const PersistentForwardArgs<T>& args, unsigned char* shared)
      : steps_(args.steps),
        step_(blockIdx.z == 0 ? args.first_step[0] : args.first_step[1]),
        strides_(blockIdx.z == 0 ? args.strides[0] : args.strides[1]),
        back_(blockIdx.z == 0 ? args.back[0] : args.back[1]),
        first_unit_(static_cast<int>(blockIdx.x) * kUnits),
        first_row_(args.first_row + static_cast<int>(blockIdx.y) * kRows),
        unit_(static_cast<int>(threadIdx.x) % kLanes),
        row_(static_cast<int>(threadIdx.x) / kLanes),
        slices_((step_.hidden + kSliceK - 1) / kSliceK),
        carver_(shared),
        product_(slices_, args.shared_slices, args.streamed, &carver_),
        exchange_(args.flags + Group() * gridDim.x, static_cast<int>(blockIdx.x)) {
    const size_t values = ExchangedValues(slices_, kBatchTiles, kSliceK);
    read_ = reinterpret_cast<Exchanged*>(args.exchanged) + Group() * 2 * values;
    to_other_ = static_cast<int>(values);
    const T* weight = blockIdx.z == 0 ? args.h2h_weight[0] : args.h2h_weight[1];
    product_.LoadWeights(Weight{weight, first_unit_, step_.hidden});
    if (row_ < kRowStep && unit_ < kUnits && first_unit_ + unit_ < step_.hidden) {
      cells_ = (min(step_.rows - first_row_, kRows) - row_ + kRowStep - 1) / kRowStep;
    }
  }

  FASTRNN_DEVICE void Run() {
    Begin();
    Publish(read_, 1);
    for (int s = 0; s < steps_; ++s) {
      RunStep(s);
      NextStep();
    }
    if (Step::kHasC && keeps_) step_.c += (steps_ - 1) * strides_.states;
    ForEachCell([this](int i, Place at) { StoreState<Step>(step_, at, state_[i]); });
  }

 private:
  static FASTRNN_DEVICE size_t Group() { return blockIdx.z * gridDim.y + blockIdx.y; }

  // Calls body(i, at) for each of the thread's cells. Neighbours in a warp have neighbouring units
  // of one row.
  template <class Body>
  FASTRNN_DEVICE void ForEachCell(const Body& body) const {
#pragma unroll
    for (int i = 0; i < kCells; ++i) {
      if (i < cells_)
        body(i, Place{first_row_ + row_ + i * kRowStep, first_unit_ + unit_, step_.hidden});
    }
  }

  // Loads what a cell keeps, and points to what it reads and writes in the first step.
  FASTRNN_DEVICE void Begin() {
    const Place at = {first_row_ + row_, first_unit_ + unit_, step_.hidden};
    // A thread without cells has these, too, and does not use them.
    put_ = read_ + Index(first_unit_ + unit_, row_);
    input_ = step_.input_sum + at.template gate<kGates>(0);
    y_ = step_.y + at.strided(step_.y_stride);
    if (keeps_) gates_ = step_.gates + at.template gate<kGates>(0);
    if (keeps_ && Step::kSplitShares) hidden_n_ = step_.hidden_n + at.state();
    if (keeps_ && Step::kHasC) c_ = step_.c + at.state();
    if (cells_ > 0) {
#pragma unroll
      for (int k = 0; k < kGates; ++k) {
        const float i2h = ToFloat(step_.i2h_bias[at.bias(k)]);
        const float h2h = ToFloat(step_.h2h_bias[at.bias(k)]);
        const bool split = Step::kSplitShares && k == kGates - 1;
        bias_[k] = split ? i2h : i2h + h2h;
        if (split) hidden_bias_ = h2h;
      }
    }
    ForEachCell([&](int i, Place cell) {
      active_[i] = ActiveSteps(cell.row);
      state_[i] = PreviousState<Step>(step_, cell);
      PutState(i, state_[i].h, 1);
    });
    put_ += to_other_;
  }

  // The launch's steps in which a row takes part: from `begin` on, `count` of them.
  struct Steps {
    int begin;
    unsigned count;
  };
  FASTRNN_DEVICE Steps ActiveSteps(int row) const {
    if (step_.lengths == nullptr) return {0, static_cast<unsigned>(steps_)};
    // How many of the row's steps are from the first step's time on, or up to it.
    const int64_t left = step_.lengths[row] - step_.time;
    if (!back_) return {0, static_cast<unsigned>(left < 0 ? 0 : left < steps_ ? left : steps_)};
    const int begin = static_cast<int>(left > 0 ? 0 : 1 - left < steps_ ? 1 - left : steps_);
    return {begin, static_cast<unsigned>(steps_ - begin)};
  }

  // The index in an exchanged array of number k of a row.
  static FASTRNN_DEVICE int Index(int k, int row) {
    return kTagged ? Tagged::Index(k, row, kRows) : BlockProduct::ExchangedIndex(k, row);
  }
  static FASTRNN_DEVICE void PutNumber(Exchanged* at, float h, [[maybe_unused]] unsigned round) {
    if constexpr (kTagged) {
      StoreTagged(at, Tagged::Word(h, round));
    } else {
      *at = ForExchange<Math>(h);
    }
  }
  FASTRNN_DEVICE void PutState(int i, float h, unsigned round) const {
    PutNumber(put_ + Index(0, i * kRowStep), h, round);
  }

  // Publishes the h of a round, which is in this buffer.
  FASTRNN_DEVICE void Publish([[maybe_unused]] Exchanged* buffer, unsigned round) {
    if constexpr (kTagged) {
      PutPadding(buffer, round);
      __syncthreads();  // The sums of the product, which all have read, can be written again.
    } else {
      exchange_.Publish(round);
    }
  }

  // Words beyond the last unit have tags, too; the last unit's block writes them.
  FASTRNN_DEVICE void PutPadding(Exchanged* buffer, unsigned round) const {
    const int k = step_.hidden + static_cast<int>(threadIdx.x) % kSliceK;
    if (k >= slices_ * kSliceK || first_unit_ + kUnits < step_.hidden) return;
    constexpr int kAtOnce = kProductThreads / kSliceK;
#pragma unroll
    for (int first = 0; first < kRows; first += kAtOnce) {
      const int row = first + static_cast<int>(threadIdx.x) / kSliceK;
      if (row >= min(step_.rows - first_row_, kRows)) break;
      PutNumber(buffer + Index(k, row), 0.0f, round);
    }
  }

  // Also publishes the last h: to leave that out would take longer in all other steps.
  FASTRNN_DEVICE void RunStep(int s) {
    const auto round = static_cast<unsigned>(s) + 2;  // of the h that it computes
    Shares<kGates> shares[kCells];
    ForEachCell([&](int i, Place at) {
#pragma unroll
      for (int k = 0; k < kGates; ++k) {
        shares[i].input[k] = input_[(i * kRowStep * kGates + k) * at.hidden];
      }
    });
    Multiply(static_cast<unsigned>(s));
    __syncthreads();
    Activated<kGates> activated[kCells];
    T y[kCells] = {};
    ForEachCell([&](int i, Place) {
#pragma unroll
      for (int k = 0; k < kGates; ++k) shares[i].input[k] += bias_[k];
      LoadSums(row_ + i * kRowStep, shares[i].hidden);
      if (Step::kSplitShares) shares[i].hidden[kGates - 1] += hidden_bias_;
      y[i] = Advance<Step>(step_, IsActive(i, s), shares[i], &state_[i], &activated[i]);
      PutState(i, state_[i].h, round);
    });
    Publish(read_ + to_other_, round);
    ForEachCell([&](int i, Place at) {
      y_[i * kRowStep * step_.y_stride] = y[i];
      const int state = i * kRowStep * at.hidden;
      if (keeps_ && IsActive(i, s)) {
        StoreActivated<Step>(gates_ + state * kGates, hidden_n_ + state, at.hidden, activated[i]);
      }
      if (Step::kHasC && keeps_) c_[state] = state_[i].c;
    });
  }

  // Multiplies the h of the s-th step, after waiting for what the warp needs of it.
  FASTRNN_DEVICE void Multiply(unsigned s) {
    if constexpr (kTagged) {
      product_.template MultiplyTagged<Tagged>(read_, s + 1, step_.rows - first_row_);
    } else {
      const int first = product_.first() * kSliceK;
      const int end = min(product_.end() * kSliceK, step_.hidden);
      exchange_.Wait(first / kUnits, (end + kUnits - 1) / kUnits, s + 1);
      product_.Multiply(read_);
    }
  }

  FASTRNN_DEVICE void LoadSums(int row, float (&sums)[kGates]) const {
    if constexpr (kGates == 4) {
      const float4 four = product_.SumOfFour(Weight::Row(0, unit_), row);
      sums[0] = four.x, sums[1] = four.y, sums[2] = four.z, sums[3] = four.w;
    } else {
#pragma unroll
      for (int k = 0; k < kGates; ++k) sums[k] = product_.Sum(Weight::Row(k, unit_), row);
    }
  }

  FASTRNN_DEVICE bool IsActive(int i, int s) const {
    return static_cast<unsigned>(s - active_[i].begin) < active_[i].count;
  }

  FASTRNN_DEVICE void NextStep() {
    read_ += to_other_;
    put_ -= to_other_;
    to_other_ = -to_other_;
    input_ += strides_.gates;
    y_ += strides_.y;
    if (!keeps_) return;
    gates_ += strides_.gates;
    if (Step::kSplitShares) hidden_n_ += strides_.states;
    if (Step::kHasC) c_ += strides_.states;
  }

  const int steps_;
  ForwardStep<T> step_;
  const ForwardStrides strides_;
  const bool back_;
  const bool keeps_ = step_.gates != nullptr;  // what backward reads
  const int first_unit_, first_row_;
  const int unit_, row_;  // of the thread's first cell, in the block
  const int slices_;
  int cells_ = 0;  // of the thread
  SharedCarver carver_;
  BlockProduct product_;
  Exchange exchange_;
  Exchanged* read_;  // the buffer of the h that the step multiplies
  int to_other_;     // from there to the other buffer, in values
  // Of the first cell, in the current step. The last three are only used if keeps_.
  Exchanged* put_ = nullptr;  // where the other blocks will read its h
  const float* input_ = nullptr;
  T* y_ = nullptr;
  T* gates_ = nullptr;
  T* hidden_n_ = nullptr;
  float* c_ = nullptr;
  // Of the unit's gates: both biases' sums; but h2h's apart if a gate's shares are split.
  float bias_[kGates], hidden_bias_ = 0.0f;
  Steps active_[kCells];
  UnitState<float> state_[kCells];
};

template <class Step, class Math, int kRowTiles, int kBatchTiles, bool kStreams, Signal kSignal>
__global__ void __launch_bounds__(kProductThreads, 1)
    PersistentForwardKernel(const PersistentForwardArgs<typename Math::Value> args) {
  if constexpr (kIsSupported<Math>) {
    FASTRNN_DYNAMIC_SHARED(shared);
    ForwardBlock<Step, Math, kRowTiles, kBatchTiles, kStreams, kSignal>(args, shared).Run();
  } else {
    Trap();  // plan.cc does not choose it.
  }
}

}  // namespace cuda
}  // namespace fastrnn
