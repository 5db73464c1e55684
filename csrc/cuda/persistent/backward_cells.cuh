// What the persistent backward kernels share: their arguments, their weights, and the cells of a
// block, which are its hidden units in its rows of the batch, step by step. persistent_backward.cuh
// and persistent_scatter.cuh compute and exchange the products.
#pragma once

#include "../../rnn.h"
#include "../plan.h"
#include "../unit.cuh"

namespace fastrnn {
namespace cuda {

template <class T>
struct PersistentBackwardArgs {
  BackwardStep<T>
      last_step[kMaxDirections];  // of the launch, but with the first step's c_0 and dc_0
  const T* h2h_weight[kMaxDirections];
  bool back[kMaxDirections];  // whether forward goes back in time
  int steps;
  int first_row;  // of the first group
  // Gate gradients, if blocks read each other's:
  // [directions][groups][2][slices][8 * kBatchTiles][values of a slice], zeros
  T* exchanged;
  // Parts of sums: [directions][groups][2][tiles][parts][8 * kBatchTiles][16 * kRowTiles]
  float* sums;
  unsigned* flags;       // [directions][groups][blocks], zeros
  unsigned* sums_flags;  // [directions][groups][blocks], zeros
  int shared_slices;     // of the plan
  WeightQuad* streamed;  // [directions][groups][blocks][streamed words]
};

// h2h_weight [G*H, H] as a tile of its transpose: row r is the tile's unit r, and K runs over the
// gates of one unit after the other, from first_k to last_k - 1.
template <class T>
struct BackwardWeight {
  const T* weight;
  int gates, first_unit, first_k, last_k, hidden;

  FASTRNN_DEVICE T operator()(int row, int k) const {
    const int unit = first_unit + row, from = (first_k + k) / gates, gate = (first_k + k) % gates;
    if (unit >= hidden || from >= hidden || first_k + k >= last_k) return FromFloat<T>(0.0f);
    return weight[(static_cast<size_t>(gate) * hidden + from) * hidden + unit];
  }
};

// Each thread has some of the cells, and keeps their running gradients in registers.
template <class Step, class T, int kUnits, int kRows>
class BackwardCells {
 public:
  static constexpr int kGates = Step::kGates;
  static constexpr int kCells = (kUnits * kRows + kProductThreads - 1) / kProductThreads;
  using Gradients = GateGradients<kGates>[kCells];

  FASTRNN_DEVICE explicit BackwardCells(const PersistentBackwardArgs<T>& args)
      : steps_(args.steps),
        step_(blockIdx.z == 0 ? args.last_step[0] : args.last_step[1]),
        c_0_(step_.c_0),
        to_(blockIdx.z == 0 ? (args.back[0] ? 1 : -1) : (args.back[1] ? 1 : -1)),
        first_unit_(static_cast<int>(blockIdx.x) * kUnits),
        first_row_(args.first_row + static_cast<int>(blockIdx.y) * kRows) {
    step_.c_0 = nullptr;
  }

  FASTRNN_DEVICE int hidden() const { return step_.hidden; }
  FASTRNN_DEVICE int first_unit() const { return first_unit_; }
  // The block's rows, without those beyond the batch.
  FASTRNN_DEVICE int rows() const { return min(step_.rows - first_row_, kRows); }
  FASTRNN_DEVICE int UnitOf(Place at) const { return at.unit - first_unit_; }
  FASTRNN_DEVICE int RowOf(Place at) const { return at.row - first_row_; }

  // Calls body(i, at) for each of the thread's cells.
  template <class Body>
  FASTRNN_DEVICE void ForEach(const Body& body) const {
#pragma unroll
    for (int i = 0; i < kCells; ++i) {
      const int cell = static_cast<int>(threadIdx.x) + i * kProductThreads;
      const Place at = {first_row_ + cell / kUnits, first_unit_ + cell % kUnits, step_.hidden};
      if (cell < kUnits * kRows && at.row < step_.rows && at.unit < at.hidden) body(i, at);
    }
  }

  // Before the first step.
  FASTRNN_DEVICE void Begin() {
    ForEach([this](int i, Place at) {
      dh_[i] = step_.dh_n != nullptr ? ToFloat(step_.dh_n[at.state()]) : step_.dh[at.state()];
      dc_[i] = 0.0f;
      if (!Step::kHasC) return;
      dc_[i] = step_.dc_n != nullptr ? ToFloat(step_.dc_n[at.state()]) : step_.dc[at.state()];
    });
    Prefetch(0);
  }

  // Computes the step's gate gradients, and calls body(i, at, k, gradient) for each gate of a cell.
  // dh keeps the share that does not pass the gates.
  template <class Body>
  FASTRNN_DEVICE void Compute(Gradients* d, const Body& body) {
    ForEach([&](int i, Place at) {
      GateGradients<kGates>& gates = (*d)[i];
      if (present_[i].active)
        dh_[i] = Step::Backward(step_.relu, seen_[i], dy_[i] + dh_[i], &dc_[i], &gates);
#pragma unroll
      for (int k = 0; k < kGates; ++k) {
        body(i, at, k, Step::kSplitShares ? gates.h[k] : gates.x[k]);
      }
    });
  }

  // Stores the gradients of the launch's s-th step, and loads what the next step reads.
  FASTRNN_DEVICE void Store(const Gradients& d, int s) {
    ForEach([&](int i, Place at) { StoreGradients<Step>(step_, at, present_[i].first, d[i]); });
    if (s + 1 == steps_) return;
    NextStep();
    Prefetch(s + 1);
  }

  // Adds to the gradient of a cell's h in the step before.
  FASTRNN_DEVICE void Add(int i, float sum) { dh_[i] += sum; }

  // After the last step.
  FASTRNN_DEVICE void End() const {
    ForEach([this](int i, Place at) {
      step_.dh[at.state()] = dh_[i];
      if (!Step::kHasC) return;
      step_.dc[at.state()] = dc_[i];
      if (step_.dc_0 != nullptr) step_.dc_0[at.state()] = FromFloat<T>(dc_[i]);
    });
  }

 private:
  // Loads what the s-th step reads; step_ is that step.
  FASTRNN_DEVICE void Prefetch(int s) {
    if (s == steps_ - 1) step_.c_0 = c_0_;
    ForEach([this](int i, Place at) {
      present_[i] = PresenceOf(step_, at);
      if (!present_[i].active) return;
      LoadSeen<Step>(step_, at, present_[i].first, &seen_[i]);
      dy_[i] = ToFloat(step_.dy[at.strided(step_.y_stride)]);
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
    if (Step::kSplitShares) step_.dgates_h += to_ * states * kGates;
    if (!Step::kKeepsGates) return;
    step_.gates += to_ * states * kGates;
    if (Step::kSplitShares) step_.hidden_n += to_ * states;
    if (!Step::kHasC) return;
    step_.c += to_ * states;
    step_.c_prev += to_ * states;
  }

  const int steps_;
  BackwardStep<T> step_;
  const T* c_0_;
  const int to_;  // 1 or -1: to the next step in time
  const int first_unit_, first_row_;
  float dh_[kCells], dc_[kCells], dy_[kCells];
  Seen<kGates> seen_[kCells];
  Presence present_[kCells];
};

}  // namespace cuda
}  // namespace fastrnn
