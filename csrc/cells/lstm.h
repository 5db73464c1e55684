// The LSTM cell (Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000), in
// MXNet's and cuDNN's gate order i, f, g, o:
//   c = f * c_prev + i * g      h = o * tanh(c)
#pragma once

#include "cell.h"

namespace fastrnn {

struct LstmCell {
  static constexpr int kGates = 4;
  static constexpr bool kHasC = true;
  static constexpr bool kSplitShares = false;
  static constexpr bool kKeepsGates = true;

  static FASTRNN_HOST_DEVICE void Forward(const CellOptions&, const Shares<kGates>& shares,
                                          UnitState* state, Activated<kGates>* activated) {
    *activated = Activate(shares, &state->c);
    state->h = activated->gates[3] * cell::Tanh(state->c);
  }

  static FASTRNN_HOST_DEVICE float Backward(bool, const Seen<kGates>& seen, float dh, float* dc,
                                            GateGradients<kGates>* d) {
    const float i = seen.activated.gates[0], f = seen.activated.gates[1];
    const float g = seen.activated.gates[2], o = seen.activated.gates[3];
    const float tanh_c = cell::Tanh(seen.c);
    const float dc_total = *dc + dh * o * (1.0f - tanh_c * tanh_c);
    d->x[0] = dc_total * g * i * (1.0f - i);
    d->x[1] = dc_total * seen.c_prev * f * (1.0f - f);
    d->x[2] = dc_total * i * (1.0f - g * g);
    d->x[3] = dh * tanh_c * o * (1.0f - o);
    *dc = dc_total * f;
    return 0.0f;
  }

 protected:
  // Returns the gates, and replaces c by the next one.
  static FASTRNN_HOST_DEVICE Activated<kGates> Activate(const Shares<kGates>& shares, float* c) {
    const float i = cell::Sigmoid(shares.Sum(0));
    const float f = cell::Sigmoid(shares.Sum(1));
    const float g = cell::Tanh(shares.Sum(2));
    const float o = cell::Sigmoid(shares.Sum(3));
    *c = f * *c + i * g;
    return {{i, f, g, o}, 0.0f};
  }
};

// The LSTM cell with a range for c. A clipped c depends neither on i, f and g nor on c_prev. So
// backward is given zeros for these gates: the gradients that it computes from them are zeros then.
struct ClippedLstmCell : LstmCell {
  static FASTRNN_HOST_DEVICE void Forward(const CellOptions& options, const Shares<kGates>& shares,
                                          UnitState* state, Activated<kGates>* activated) {
    const Clip& clip = options.clip;
    Activated<kGates> own = Activate(shares, &state->c);
    const float c = state->c;
    float clipped = c > clip.high ? clip.high : c;
    clipped = clipped < clip.low ? clip.low : clipped;
    state->c = clip.nan && c != c ? clip.low : clipped;
    state->h = own.gates[3] * cell::Tanh(state->c);
    for (int k = 0; k < 3; ++k) own.gates[k] = state->c == c ? own.gates[k] : 0.0f;
    *activated = own;
  }
};

}  // namespace fastrnn
