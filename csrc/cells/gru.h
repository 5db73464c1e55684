// The GRU cell (Cho et al. 2014) in cuDNN's and MXNet's variant, which is linear before the reset
// gate; gate order r, z, n:
//   n = tanh(x_n + r * hidden_n)      h = (1 - z) * n + z * h_prev
// where x_n and hidden_n are the input's and the hidden state's share of the new gate, including
// biases.
#pragma once

#include "cell.h"

namespace fastrnn {

struct GruCell {
  static constexpr int kGates = 3;
  static constexpr bool kHasC = false;
  static constexpr bool kSplitShares = true;
  static constexpr bool kKeepsGates = true;

  template <class Real>
  static FASTRNN_HOST_DEVICE void Forward(const CellOptions<Real>&,
                                          const Shares<kGates, Real>& shares,
                                          UnitState<Real>* state,
                                          Activated<kGates, Real>* activated) {
    const Real hidden_n = shares.hidden[2];
    const Real r = cell::Sigmoid(shares.Sum(0));
    const Real z = cell::Sigmoid(shares.Sum(1));
    const Real n = cell::Tanh(shares.input[2] + r * hidden_n);
    state->h = n + z * (state->h - n);
    *activated = {{r, z, n}, hidden_n};
  }

  template <class Real>
  static FASTRNN_HOST_DEVICE Real Backward(bool, const Seen<kGates, Real>& seen, Real dh, Real*,
                                           GateGradients<kGates, Real>* d) {
    const Real r = seen.activated.gates[0], z = seen.activated.gates[1];
    const Real n = seen.activated.gates[2];
    const Real dn = dh * (1.0f - z) * (1.0f - n * n);
    d->x[0] = d->h[0] = dn * seen.activated.hidden_n * r * (1.0f - r);
    d->x[1] = d->h[1] = dh * (seen.h_prev - n) * z * (1.0f - z);
    d->x[2] = dn;
    d->h[2] = dn * r;
    return dh * z;
  }
};

}  // namespace fastrnn
