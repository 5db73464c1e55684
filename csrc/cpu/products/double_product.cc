#include "double_product.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "../threads.h"
#include "tile_product.h"

namespace fastrnn {
namespace cpu {
namespace {

// A panel is kPanel columns of the second factor, [k, kPanel], zeros past the last column. A tile
// is kPanel columns of kTileRows rows of the result, of which as many columns are summed at a time
// as leave registers for the factors. kDepth rows of a panel stay in the first-level cache.
constexpr int64_t kPanel = 16;
constexpr int64_t kTileRows = 4;
constexpr int64_t kDepth = 256;
// The fewest multiplications that make up for using a thread.
constexpr int64_t kPartWork = 1 << 18;

static_assert(TileProduct::kColumnMultiple % kPanel == 0, "columns begin at panels");

int64_t Panels(int64_t n) { return (n + kPanel - 1) / kPanel; }

using TileFunction = void (*)(int64_t k, const double* a, int64_t row_step, int64_t k_step,
                              const double* panel, double* sums);
struct Kernels {
  TileFunction tile, row;
};

#define FASTRNN_VECTOR_CODE "cpu/products/double_tiles.h"
#include "../vectors/instruction_sets.h"

const Kernels kernels = FASTRNN_FOR_THIS_PROCESSOR(kKernels);

// Copies `columns` columns of b[k, n] from a column on.
void PackPanel(int64_t k, Factor<double> b, int64_t column, int64_t columns, double* panel) {
  const bool transposed = b.transpose == Transpose::kYes;
  const double* const from = b.data + (transposed ? column * b.stride : column);
  if (columns < kPanel) std::fill_n(panel, k * kPanel, 0.0);
  if (!transposed) {
    for (int64_t i = 0; i < k; ++i) std::copy_n(from + i * b.stride, columns, panel + i * kPanel);
    return;
  }
  for (int64_t j = 0; j < columns; ++j) {
    for (int64_t i = 0; i < k; ++i) panel[i * kPanel + j] = from[j * b.stride + i];
  }
}

// c[m, columns] = a[m, k] * panel + beta * c
void RunPanel(int64_t m, int64_t columns, int64_t k, Factor<double> a, const double* panel,
              double beta, Result<double> c) {
  const bool transposed = a.transpose == Transpose::kYes;
  const int64_t row_step = transposed ? 1 : a.stride, k_step = transposed ? a.stride : 1;
  double sums[kTileRows * kPanel];
  for (int64_t begin = 0; begin < k; begin += kDepth, beta = 1.0) {
    const int64_t depth = std::min(kDepth, k - begin);
    int64_t rows = 0;
    for (int64_t row = 0; row < m; row += rows) {
      rows = row + kTileRows <= m ? kTileRows : 1;
      (rows == 1 ? kernels.row : kernels.tile)(depth, a.data + row * row_step + begin * k_step,
                                               row_step, k_step, panel + begin * kPanel, sums);
      for (int64_t r = 0; r < rows; ++r) {
        double* const to = c.data + (row + r) * c.stride;
        for (int64_t j = 0; j < columns; ++j) {
          const double sum = sums[r * kPanel + j];
          to[j] = beta == 0.0 ? sum : sum + beta * to[j];
        }
      }
    }
  }
}

}  // namespace

void Gemm(int64_t m, int64_t n, int64_t k, Factor<double> a, Factor<double> b, float beta,
          Result<double> c) {
  const auto run = [&](int64_t panel) {
    const int64_t column = panel * kPanel, columns = std::min(kPanel, n - column);
    const std::unique_ptr<double[]> packed(new double[k * kPanel]);
    PackPanel(k, b, column, columns, packed.get());
    RunPanel(m, columns, k, a, packed.get(), beta, {c.data + column, c.stride});
  };
  if (m * n * k >= 2 * kPartWork) return ParallelFor(Panels(n), run);
  for (int64_t panel = 0; panel < Panels(n); ++panel) run(panel);
}

size_t DoubleProduct::weight_bytes() const { return Panels(n_) * kPanel * k_ * sizeof(double); }

void DoubleProduct::Pack(const double* weights, double* packed) const {
  const Factor<double> factor = {weights, transpose_ == Transpose::kYes ? k_ : n_, transpose_};
  for (int64_t column = 0; column < n_; column += kPanel, packed += k_ * kPanel) {
    PackPanel(k_, factor, column, std::min(kPanel, n_ - column), packed);
  }
}

void DoubleProduct::Run(int64_t m, const double* source, const double* packed, double* destination,
                        int64_t begin, int64_t end) const {
  for (int64_t column = begin; column < end; column += kPanel) {
    RunPanel(m, std::min(kPanel, end - column), k_, {source, k_}, packed + column * k_,
             accumulate_ ? 1.0 : 0.0, {destination + column, n_});
  }
}

}  // namespace cpu
}  // namespace fastrnn
