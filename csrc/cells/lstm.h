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

  static FASTRNN_HOST_DEVICE void Forward(const CellOptions& options, const Shares<kGates>& shares,
                                          UnitState* state, Activated<kGates>* activated) {
    Compute<false>(options.clip, shares, state, activated);
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
  // A clipped c depends neither on i, f and g nor on c_prev. So backward is given zeros for these
  // gates: the gradients that it computes from them are zeros then.
  template <bool kClips>
  static FASTRNN_HOST_DEVICE void Compute(const Clip& clip, const Shares<kGates>& shares,
                                          UnitState* state, Activated<kGates>* activated) {
    const float i = cell::Sigmoid(shares.Sum(0));
    const float f = cell::Sigmoid(shares.Sum(1));
    const float g = cell::Tanh(shares.Sum(2));
    const float o = cell::Sigmoid(shares.Sum(3));
    const float c = f * state->c + i * g;
    state->c = kClips ? Clipped(clip, c) : c;
    state->h = o * cell::Tanh(state->c);
    const bool kept = !kClips || state->c == c;
    *activated = {{kept ? i : 0.0f, kept ? f : 0.0f, kept ? g : 0.0f, o}, 0.0f};
  }

 private:
  static FASTRNN_HOST_DEVICE float Clipped(const Clip& clip, float c) {
    if (clip.nan && c != c) return clip.low;
    c = c > clip.high ? clip.high : c;
    return c < clip.low ? clip.low : c;
  }
};

// The LSTM cell with a range for c.
struct ClippedLstmCell : LstmCell {
  static FASTRNN_HOST_DEVICE void Forward(const CellOptions& options, const Shares<kGates>& shares,
                                          UnitState* state, Activated<kGates>* activated) {
    Compute<true>(options.clip, shares, state, activated);
  }
};

}  // namespace fastrnn
