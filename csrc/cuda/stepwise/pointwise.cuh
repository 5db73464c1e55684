// The kernels of a step: its cells for all rows, forward and backward.
//
// A step's kernel moves a few hundred kilobytes, which stay in the L2 cache, in less time than its
// launch takes. So it is as simple as can be: a thread computes one hidden unit of one row, and
// neighbours in a warp are neighbours in memory.
#pragma once

#include "../unit.cuh"

namespace fastrnn {
namespace cuda {

constexpr int kStepThreads = 128;
constexpr unsigned kMaxGridRows = 65535;  // of a grid's second dimension

template <class Step, class T>
FASTRNN_DEVICE void Unit(const ForwardStep<T>& p, Place at) {
  const bool active = IsActive(p, at);
  UnitState<float> state = PreviousState<Step>(p, at);
  Shares<Step::kGates> shares = {};
  Activated<Step::kGates> activated;
  if (active) {
#pragma unroll
    for (int k = 0; k < Step::kGates; ++k) {
      shares.input[k] = InputShare<Step::kGates>(p, at, k);
      shares.hidden[k] = p.hidden_sum[at.gate<Step::kGates>(k)] + ToFloat(p.h2h_bias[at.bias(k)]);
    }
  }
  const T y = Advance<Step>(p, active, shares, &state, &activated);
  if (active) StoreActivated<Step>(p, at, activated);
  StoreState<Step>(p, at, state);
  p.y[at.strided(p.y_stride)] = y;  // the last one, see OfCells
}

template <class Step, class T>
FASTRNN_DEVICE void Unit(const BackwardStep<T>& p, Place at) {
  const Presence present = PresenceOf(p, at);
  const float dh_next = p.dh_n != nullptr ? ToFloat(p.dh_n[at.state()]) : p.dh[at.state()];
  float dc = 0.0f;
  if (Step::kHasC) dc = p.dc_n != nullptr ? ToFloat(p.dc_n[at.state()]) : p.dc[at.state()];
  float dh_prev = dh_next;
  GateGradients<Step::kGates> d = {};
  if (present.active) {
    Seen<Step::kGates> seen;
    LoadSeen<Step>(p, at, present.first, &seen);
    dh_prev =
        Step::Backward(p.relu, seen, ToFloat(p.dy[at.strided(p.y_stride)]) + dh_next, &dc, &d);
  }
  if (p.dh_wanted) p.dh[at.state()] = dh_prev;
  if (Step::kHasC) {
    p.dc[at.state()] = dc;
    if (p.dc_0 != nullptr) p.dc_0[at.state()] = FromFloat<T>(dc);
  }
  StoreGradients<Step>(p, at, present.first, d);
}

// Launched with StepGrid. The loop is for batches beyond a grid's height.
template <class Step, class Arguments>
__global__ void __launch_bounds__(kStepThreads) StepKernel(const Arguments p) {
  const int unit = static_cast<int>(blockIdx.x * kStepThreads + threadIdx.x);
  if (unit >= p.hidden) return;
  // Unsigned, because the last sum may overflow an int.
  for (unsigned row = blockIdx.y; row < static_cast<unsigned>(p.rows); row += gridDim.y) {
    Unit<Step>(p, {static_cast<int>(row), unit, p.hidden});
  }
}

inline dim3 StepGrid(int rows, int hidden) {
  const unsigned height = static_cast<unsigned>(rows);
  return dim3((static_cast<unsigned>(hidden) + kStepThreads - 1) / kStepThreads,
              height < kMaxGridRows ? height : kMaxGridRows);
}

}  // namespace cuda
}  // namespace fastrnn
