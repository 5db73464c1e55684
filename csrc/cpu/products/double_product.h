// Matrix products in float64, which oneDNN does not have: plain loops, vectorised for the processor
// at hand. They serve checks of gradients: they are accurate to float64 and fast enough.
//
// Each number is summed in an order that depends on k alone.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../../pass.h"

namespace fastrnn {
namespace cpu {

// As Gemm of gemm.h.
void Gemm(int64_t m, int64_t n, int64_t k, Factor<double> a, Factor<double> b, float beta,
          Result<double> c);

// As TileProduct of tile_product.h, for layers of every size.
class DoubleProduct {
 public:
  DoubleProduct(int64_t n, int64_t k, Transpose transpose, bool accumulate)
      : n_(n), k_(k), transpose_(transpose), accumulate_(accumulate) {}

  size_t weight_bytes() const;
  void Pack(const double* weights, double* packed) const;
  // Computes the columns [begin, end); begin is a multiple of TileProduct::kColumnMultiple.
  void Run(int64_t m, const double* source, const double* packed, double* destination,
           int64_t begin, int64_t end) const;

 private:
  int64_t n_, k_;
  Transpose transpose_;
  bool accumulate_;
};

}  // namespace cpu
}  // namespace fastrnn
