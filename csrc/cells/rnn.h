// The vanilla cell (Elman 1990): h = tanh(a) or relu(a). Both derivatives follow from h alone.
#pragma once

#include "cell.h"

namespace fastrnn {

struct RnnCell {
  static constexpr int kGates = 1;
  static constexpr bool kHasC = false;
  static constexpr bool kSplitShares = false;
  static constexpr bool kKeepsGates = false;

  template <class Real>
  static FASTRNN_HOST_DEVICE void Forward(const CellOptions<Real>& options,
                                          const Shares<kGates, Real>& shares,
                                          UnitState<Real>* state, Activated<kGates, Real>*) {
    const Real a = shares.Sum(0);
    state->h = options.relu ? cell::Relu(a) : cell::Tanh(a);
  }

  template <class Real>
  static FASTRNN_HOST_DEVICE Real Backward(bool relu, const Seen<kGates, Real>& seen, Real dh,
                                           Real*, GateGradients<kGates, Real>* d) {
    const Real tanh_gradient = dh * (1.0f - seen.h * seen.h);
    d->x[0] = relu ? (seen.h > 0.0f ? dh : 0.0f) : tanh_gradient;
    return 0.0f;
  }
};

}  // namespace fastrnn
