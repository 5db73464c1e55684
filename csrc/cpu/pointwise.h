// The cells on a range of one row's hidden units, vectorised for the processor at hand. Every
// pointer is to the row's first hidden unit; gate k of unit j is at [k * hidden + j]. Arrays that a
// cell does not have (cells/cell.h) are null.
#pragma once

#include <cstdint>

#include "../rnn.h"

namespace fastrnn {
namespace cpu {

// The units [begin, end) of a row of `hidden` units.
struct Units {
  int64_t hidden, begin, end;
};

struct ForwardRow {
  float* gates;              // [G*H] in: input's share of the pre-activations, out: activated gates
  const float* h2h;          // [G*H] hidden state's share
  const float* bias;         // [G*H] both biases; the input's alone in a last gate that is split
  const float* bias_hidden;  // [H] the hidden state's bias of the last gate, if it is split
  const float* c_prev;       // [H], may be c
  float* c;                  // [H]
  float* hidden_n;           // [H] out: hidden state's share of the last gate, with its bias
  const float* h_prev;       // [H], may be h
  float* h;                  // [H]
  float* y;                  // [H]
  Clip clip;                 // for a clipped LSTM
};

struct BackwardRow {
  const float* gates;     // [G*H] activated
  const float* hidden_n;  // [H]
  const float* h_prev;    // [H]
  const float* c_prev;    // [H]
  const float* c;         // [H]
  const float* y;         // [H]
  const float* dy;        // [H]
  // [H] gradient of h: in: from the next step; out: the share of the previous state's gradient that
  // does not pass the gates.
  float* dh;
  float* dc;        // [H] in: from the next step, out: for the previous one
  float* dgates_x;  // [G*H] gradients of the input's share
  float* dgates_h;  // [G*H] gradients of the hidden state's share, if the cell splits them
};

using ForwardUnits = void (*)(const ForwardRow& row, Units units);
using BackwardUnits = void (*)(const BackwardRow& row, Units units);

ForwardUnits ForwardOf(const LayerDesc& desc);
BackwardUnits BackwardOf(Mode mode);

// sums[j] = sum over rows of matrix[row * stride + j] for j in [begin, end), added to sums[j] if
// accumulate is set. The order is fixed: the same inputs give the same bits.
void SumRows(const float* matrix, int64_t rows, int64_t stride, int64_t begin, int64_t end,
             bool accumulate, float* sums);

}  // namespace cpu
}  // namespace fastrnn
