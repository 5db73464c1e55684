// What the walk through time of one direction (forward_pass.h and backward_pass.h) asks of every
// backend.
//
// The walk goes in chunks of time. For each chunk, one product projects the inputs of all its
// steps; backward mirrors this, with one product per chunk for dx and for each weight gradient. A
// backend supplies the products and the steps, as a `Work` class:
//
//   Gemm(m, n, k, a, b, beta, c)      c[m, n] = a[m, k] * b[k, n] + beta * c; a and b are Factor<T>
//   Step(desc, step, weights)         one step, with its products with the direction's weights
//   BeginNoise(step, noise)           before the step of a layer with noise (noise_step.h)
//   EndNoise(step, noise)             after it
// and for backward
//   CopyRows(x, first_row, rows, columns, lengths, batch, to)   zeros past a row's length
//   SumRows(dgates, rows, columns, accumulate, sums, copy)      copy: a second result, or null
//   Round(from, values, to)           accumulators to the layer's type
//   SetZero(array, values)
// and for layers that are normalised
//   Normalize(desc, rows)             forward: NormalizedRows, unless the steps do it
//   NormGradients(desc, chunk)        backward: NormChunk
#pragma once

#include <cstdint>

#include "layout.h"

namespace fastrnn {

// A factor of a product, as stored: row-major, with rows `stride` values apart.
template <class T>
struct Factor {
  const T* data;
  int64_t stride;
  Transpose transpose = Transpose::kNo;
};

// The result of a product, stored likewise.
template <class T>
struct Result {
  T* data;
  int64_t stride;
};

// Rows of a product with the weights of a normalised layer; T is the layer's type.
template <class T>
struct NormalizedRows {
  int64_t time;              // of the first row
  int rows;                  // N for each step; of a single step perhaps fewer
  const int32_t* lengths;    // [N], or null
  Accumulator<T>* products;  // [rows, G*H] in: the product, out: normalised, times gamma
  const T* gamma;            // [G*H]
  // For backward, with zeros past a row's length, where inputs may be NaN; null without a reserve.
  T* normalized;         // [rows, G*H] with mean 0 and variance 1
  Accumulator<T>* rstd;  // [rows, parts] the reciprocal standard deviations
};

// The rows of a chunk whose steps have been run backward, for what comes after: the gradients of
// the gammas, biases and of an LSTM's c_gamma and c_beta, and those of the input's product.
template <class T>
struct NormChunk {
  using Sum = Accumulator<T>;

  int64_t rows;
  bool accumulate;  // whether the sums hold those of other chunks
  // [rows, G*H] in: of the input's share, normalised; out: of its product.
  T* dgates_x;
  const T* dshare_h;           // [rows, G*H] dgates_x as it was, unless the cell splits its shares
  const T* normalized_input;   // [rows, G*H]
  const T* normalized_hidden;  // [rows, G*H]
  const Sum* input_rstd;       // [rows, parts]
  const T* dc_gamma;           // [rows, H] (LSTM), as dc_beta
  const T* dc_beta;
  const T* i2h_gamma;    // [G*H]
  Parameters<Sum> sums;  // of the gradients
};

// Rows of the batch, [begin, end). They are independent of one another in every step.
struct Rows {
  int64_t begin, end;
  int64_t count() const { return end - begin; }
};

}  // namespace fastrnn
