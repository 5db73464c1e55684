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
    const OutputGradients<Real> of_output = OfOutput(seen.activated.gates[3], seen.c, dh);
    d->x[3] = of_output.o;
    *dc = OfCellState(seen, *dc + of_output.c, d);
    return 0.0f;
  }

 protected:
  // The gradients of h = o * tanh(c); o's is that of the gate's pre-activation.
  template <class Real>
  struct OutputGradients {
    Real o, c;
  };
  template <class Real>
  static FASTRNN_HOST_DEVICE OutputGradients<Real> OfOutput(Real o, Real c, Real dh) {
    const Real tanh_c = cell::Tanh(c);
    return {dh * tanh_c * o * (1.0f - o), dh * o * (1.0f - tanh_c * tanh_c)};
  }

  // Those of c = f * c_prev + i * g; returns that of c_prev.
  template <class Real>
  static FASTRNN_HOST_DEVICE Real OfCellState(const Seen<kGates, Real>& seen, Real dc,
                                              GateGradients<kGates, Real>* d) {
    const Real i = seen.activated.gates[0], f = seen.activated.gates[1];
    const Real g = seen.activated.gates[2];
    d->x[0] = dc * g * i * (1.0f - i);
    d->x[1] = dc * seen.c_prev * f * (1.0f - f);
    d->x[2] = dc * i * (1.0f - g * g);
    return dc * f;
  }

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

// The LSTM cell of a layer-normalised layer, in two parts: the output needs the mean and variance
// of all of a row's c.
struct NormalizedLstmCell : LstmCell {
  // The first part; h is o alone.
  template <class Real>
  static FASTRNN_HOST_DEVICE void Forward(const CellOptions<Real>& options,
                                          const Shares<kGates, Real>& shares,
                                          UnitState<Real>* state,
                                          Activated<kGates, Real>* activated) {
    Compute<false>(options.clip, shares, state, activated);
    state->h = activated->gates[3];
  }

  // seen_c: the normalised c, scaled and shifted.
  template <class Real>
  static FASTRNN_HOST_DEVICE Real Output(Real o, Real seen_c) {
    return o * cell::Tanh(seen_c);
  }

  using LstmCell::OfCellState;
  using LstmCell::OfOutput;
  template <class Real>
  using OutputGradients = LstmCell::OutputGradients<Real>;
};

}  // namespace fastrnn
