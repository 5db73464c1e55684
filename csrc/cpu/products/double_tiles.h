// The tiles of double_product.cc, compiled for each instruction set (vectors/instruction_sets.h).

constexpr int kLanes = FASTRNN_BYTES / sizeof(double);
typedef double Lanes __attribute__((vector_size(FASTRNN_BYTES)));

// sums[kRows, kPanel] = a[kRows, k] * panel[k, kPanel], kVectors vectors of columns at a time; a's
// numbers are row_step and k_step apart.
template <int kRows, int kVectors>
FASTRNN_TARGET void Tile(int64_t k, const double* a, int64_t row_step, int64_t k_step,
                         const double* panel, double* sums) {
  for (int column = 0; column < kPanel; column += kVectors * kLanes) {
    Lanes sum[kRows][kVectors] = {};
    for (int64_t i = 0; i < k; ++i) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        Lanes factor;
        std::memcpy(&factor, panel + i * kPanel + column + v * kLanes, sizeof factor);
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) sum[r][v] += a[r * row_step + i * k_step] * factor;
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        const Lanes one = sum[r][v];  // an array whose address is taken would be in memory
        std::memcpy(sums + r * kPanel + column + v * kLanes, &one, sizeof one);
      }
    }
  }
}

constexpr Kernels kKernels = {Tile<kTileRows, 2>, Tile<1, kPanel / kLanes>};
