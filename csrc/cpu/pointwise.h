// The cells applied to a stretch of one row's hidden units, vectorised for the processor at hand.
// Every pointer is to the row's first hidden unit; gate k of unit j stands at [k * hidden + j].
//
// dh is the gradient of the hidden state, in: from the next step, out: that share of the previous
// state's which does not pass the gates, 0 but for GRU.
#pragma once

#include <cstdint>

namespace fastrnn {
namespace cpu {

// The units [begin, end) of a row of `hidden` units.
struct Units {
  int64_t hidden, begin, end;
};

struct LstmForwardRow {
  float* gates;         // [4H] in: input's share of the pre-activations, out: activated gates
  const float* h2h;     // [4H] hidden state's share
  const float* bias;    // [4H]
  const float* c_prev;  // [H], may be c
  float* c;             // [H]
  float* h;             // [H]
  float* y;             // [H]
};
void LstmForward(const LstmForwardRow& row, Units units);

struct LstmBackwardRow {
  const float* gates;   // [4H] activated
  const float* c_prev;  // [H]
  const float* c;       // [H]
  const float* dy;      // [H]
  float* dh;            // [H]
  float* dc;            // [H] in: from the next step, out: for the previous one
  float* dgates;        // [4H]
};
void LstmBackward(const LstmBackwardRow& row, Units units);

struct GruForwardRow {
  float* gates;              // [3H] in: input's share of the pre-activations, out: activated gates
  const float* h2h;          // [3H] hidden state's share
  const float* bias;         // [3H] i2h bias, plus for r and z the h2h bias
  const float* bias_hidden;  // [H] h2h bias of n
  float* hidden_n;           // [H] out: hidden state's share of n, with its bias
  float* h;                  // [H] in: previous state, out: next
  float* y;                  // [H]
};
void GruForward(const GruForwardRow& row, Units units);

struct GruBackwardRow {
  const float* gates;     // [3H] activated
  const float* hidden_n;  // [H]
  const float* h_prev;    // [H]
  const float* dy;        // [H]
  float* dh;              // [H]
  float* dgates_x;        // [3H] gradients of the input's share
  float* dgates_h;        // [3H] gradients of the hidden state's share
};
void GruBackward(const GruBackwardRow& row, Units units);

struct RnnForwardRow {
  const float* i2h;   // [H] input's share of the pre-activation
  const float* h2h;   // [H]
  const float* bias;  // [H]
  float* h;           // [H]
  float* y;           // [H]
};
void RnnTanhForward(const RnnForwardRow& row, Units units);
void RnnReluForward(const RnnForwardRow& row, Units units);

struct RnnBackwardRow {
  const float* y;   // [H]
  const float* dy;  // [H]
  float* dh;        // [H]
  float* dgates;    // [H]
};
void RnnTanhBackward(const RnnBackwardRow& row, Units units);
void RnnReluBackward(const RnnBackwardRow& row, Units units);

// sums[j] = sum over rows of matrix[row * stride + j] for j in [begin, end), plus what sums holds
// where accumulate is set. In a fixed order, so that the same inputs give the same bits.
void SumRows(const float* matrix, int64_t rows, int64_t stride, int64_t begin, int64_t end,
             bool accumulate, float* sums);

}  // namespace cpu
}  // namespace fastrnn
