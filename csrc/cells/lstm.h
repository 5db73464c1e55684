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

  template <class Real>
  static FASTRNN_HOST_DEVICE void Forward(const CellOptions<Real>& options,
                                          const Shares<kGates, Real>& shares,
                                          UnitState<Real>* state,
                                          Activated<kGates, Real>* activated) {
    Compute<false>(options.clip, shares, state, activated);
  }

  template <class Real>
  static FASTRNN_HOST_DEVICE Real Backward(bool, const Seen<kGates, Real>& seen, Real dh, Real* dc,
                                           GateGradients<kGates, Real>* d) {
    const Real i = seen.activated.gates[0], f = seen.activated.gates[1];
    const Real g = seen.activated.gates[2], o = seen.activated.gates[3];
    const Real tanh_c = cell::Tanh(seen.c);
    const Real dc_total = *dc + dh * o * (1.0f - tanh_c * tanh_c);
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
  template <bool kClips, class Real>
  static FASTRNN_HOST_DEVICE void Compute(const Clip<Real>& clip,
                                          const Shares<kGates, Real>& shares,
                                          UnitState<Real>* state,
                                          Activated<kGates, Real>* activated) {
    const Real i = cell::Sigmoid(shares.Sum(0));
    const Real f = cell::Sigmoid(shares.Sum(1));
    const Real g = cell::Tanh(shares.Sum(2));
    const Real o = cell::Sigmoid(shares.Sum(3));
    const Real c = f * state->c + i * g;
    state->c = kClips ? Clipped(clip, c) : c;
    state->h = o * cell::Tanh(state->c);
    const bool kept = !kClips || state->c == c;
    *activated = {{kept ? i : 0.0f, kept ? f : 0.0f, kept ? g : 0.0f, o}, 0.0f};
  }

 private:
  template <class Real>
  static FASTRNN_HOST_DEVICE Real Clipped(const Clip<Real>& clip, Real c) {
    if (clip.nan && c != c) return clip.low;
    c = c > clip.high ? clip.high : c;
    return c < clip.low ? clip.low : c;
  }
};

// The LSTM cell with a range for c.
struct ClippedLstmCell : LstmCell {
  template <class Real>
  static FASTRNN_HOST_DEVICE void Forward(const CellOptions<Real>& options,
                                          const Shares<kGates, Real>& shares,
                                          UnitState<Real>* state,
                                          Activated<kGates, Real>* activated) {
    Compute<true>(options.clip, shares, state, activated);
  }
};

}  // namespace fastrnn
