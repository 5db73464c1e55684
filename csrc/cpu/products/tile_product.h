// Our own recurrent product: loops over packed weights, vectorised for the processor at hand. It is
// for small layers, where a library's fixed cost of about a microsecond a call is many times what
// the product takes, and for larger ones where it is faster (IsFaster in step_product.cc).
//
// Each number is summed in an order that depends on n and k alone: a row's numbers are the same
// bits whichever rows are computed with it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../../layout.h"

namespace fastrnn {
namespace cpu {

// destination[m, n] = source[m, k] * weights[k, n], or += where it accumulates; all dense.
class TileProduct {
 public:
  static constexpr int64_t kColumnMultiple = 16;  // the longest vector

  // The weights are given as stored: [k, n] where transpose is no, [n, k] where it is yes.
  TileProduct(int64_t n, int64_t k, Transpose transpose, bool accumulate)
      : n_(n), k_(k), transpose_(transpose), accumulate_(accumulate) {}

  // Of the instruction set at hand: 64 is AVX-512, 32 AVX2.
  static int vector_bytes();

  size_t weight_bytes() const;
  // The threads of the scope (threads.h) share the columns.
  void Pack(const float* weights, float* packed) const;
  // Computes the columns [begin, end); begin is a multiple of kColumnMultiple.
  void Run(int64_t m, const float* source, const float* packed, float* destination, int64_t begin,
           int64_t end) const;

 private:
  void PackColumns(const float* weights, int64_t column, int64_t lanes, float* packed) const;

  int64_t n_, k_;
  Transpose transpose_;
  bool accumulate_;
};

}  // namespace cpu
}  // namespace fastrnn
