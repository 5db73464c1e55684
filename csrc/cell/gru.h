// The GRU cell for one hidden unit of one row (Cho et al. 2014) in cuDNN's and MXNet's variant,
// which is linear before the reset gate; gate order r, z, n:
//   n = tanh(x_n + r * hidden_n)      h = (1 - z) * n + z * h_prev
// where x_n and hidden_n are the input's and the hidden state's share of the new gate, biases
// included.
#pragma once

#include "math.h"

namespace fastrnn {
namespace cell {

struct GruGates {
  float r, z, n;
};

// In: the pre-activations of r and z, and x_n. Out: activated gates; returns h.
FASTRNN_HOST_DEVICE float GruForward(GruGates* gates, float hidden_n, float h_prev) {
  gates->r = Sigmoid(gates->r);
  gates->z = Sigmoid(gates->z);
  gates->n = Tanh(gates->n + gates->r * hidden_n);
  return gates->n + gates->z * (h_prev - gates->n);
}

// gates are the activated ones. dh: in the gradient of h, out the share of h_prev's gradient that
// does not pass through the gates. d_hidden_n: the gradient of hidden_n. Returns the gradients of
// the pre-activations of r and z, and of x_n.
FASTRNN_HOST_DEVICE GruGates GruBackward(const GruGates& gates, float hidden_n, float h_prev,
                                         float* dh, float* d_hidden_n) {
  GruGates d;
  d.n = *dh * (1.0f - gates.z) * (1.0f - gates.n * gates.n);
  d.z = *dh * (h_prev - gates.n) * gates.z * (1.0f - gates.z);
  d.r = d.n * hidden_n * gates.r * (1.0f - gates.r);
  *d_hidden_n = d.n * gates.r;
  *dh = *dh * gates.z;
  return d;
}

}  // namespace cell
}  // namespace fastrnn
