// The LSTM cell for one hidden unit of one row (Hochreiter and Schmidhuber 1997 with the forget
// gate of Gers et al. 2000), in MXNet's and cuDNN's gate order i, f, g, o:
//   c = f * c_prev + i * g      h = o * tanh(c)
#pragma once

#include "math.h"

namespace fastrnn {
namespace cell {

struct LstmGates {
  float i, f, g, o;
};

// In: pre-activations. Out: activated gates, c; returns h.
FASTRNN_HOST_DEVICE float LstmForward(LstmGates* gates, float c_prev, float* c) {
  gates->i = Sigmoid(gates->i);
  gates->f = Sigmoid(gates->f);
  gates->g = Tanh(gates->g);
  gates->o = Sigmoid(gates->o);
  *c = gates->f * c_prev + gates->i * gates->g;
  return gates->o * Tanh(*c);
}

// gates are the activated ones. dc: in the gradient of c from the next step, out that of c_prev.
// Returns the gradients of the pre-activations.
FASTRNN_HOST_DEVICE LstmGates LstmBackward(const LstmGates& gates, float c_prev, float c, float dh,
                                           float* dc) {
  const float tanh_c = Tanh(c);
  const float dc_total = *dc + dh * gates.o * (1.0f - tanh_c * tanh_c);
  LstmGates d;
  d.i = dc_total * gates.g * gates.i * (1.0f - gates.i);
  d.f = dc_total * c_prev * gates.f * (1.0f - gates.f);
  d.g = dc_total * gates.i * (1.0f - gates.g * gates.g);
  d.o = dh * tanh_c * gates.o * (1.0f - gates.o);
  *dc = dc_total * gates.f;
  return d;
}

}  // namespace cell
}  // namespace fastrnn
