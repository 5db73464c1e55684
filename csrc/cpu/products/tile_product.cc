#include "tile_product.h"

#include <algorithm>
#include <cstring>

#include "../threads.h"

namespace fastrnn {
namespace cpu {
namespace {

// A product's arrays, and its columns that are wanted: [begin, end), where begin is a multiple of
// the lanes. packed is [n / lanes, k, lanes], zeros at its end.
struct Tiles {
  int64_t n, k, begin, end;
  bool accumulate;
  const float* source;
  const float* packed;
  float* destination;
};

struct Kernels {
  int64_t lanes;
  void (*run)(const Tiles& at, int64_t m);
};

#define FASTRNN_VECTOR_CODE "cpu/products/tiles.h"
#include "../vectors/instruction_sets.h"

const Kernels kernels = FASTRNN_FOR_THIS_PROCESSOR(kKernels);

// The fewest weights that make up for using a thread.
constexpr int64_t kPackWork = 1 << 16;
constexpr int64_t kPackRows = 16;

}  // namespace

size_t TileProduct::weight_bytes() const {
  return (n_ + kernels.lanes - 1) / kernels.lanes * kernels.lanes * k_ * sizeof(float);
}

int TileProduct::vector_bytes() { return static_cast<int>(kernels.lanes * sizeof(float)); }

void TileProduct::Pack(const float* weights, float* packed) const {
  const int64_t lanes = kernels.lanes, vectors = (n_ + lanes - 1) / lanes;
  const int64_t tasks = std::clamp<int64_t>(n_ * k_ / kPackWork, 1, vectors);
  ParallelFor(tasks, [&](int64_t task) {
    for (int64_t v = vectors * task / tasks; v < vectors * (task + 1) / tasks; ++v) {
      PackColumns(weights, v * lanes, lanes, packed + v * lanes * k_);
    }
  });
}

// Packs the columns from `column` on: one vector.
void TileProduct::PackColumns(const float* weights, int64_t column, int64_t lanes,
                              float* packed) const {
  const int64_t count = std::min(lanes, n_ - column);
  if (count < lanes) std::fill_n(packed, k_ * lanes, 0.0f);
  if (transpose_ == Transpose::kNo) {
    for (int64_t i = 0; i < k_; ++i) {
      std::copy_n(weights + i * n_ + column, count, packed + i * lanes);
    }
    return;
  }
  // In blocks, of which the written part stays in cache until all lanes have been read.
  for (int64_t begin = 0; begin < k_; begin += kPackRows) {
    const int64_t end = std::min(begin + kPackRows, k_);
    for (int64_t lane = 0; lane < count; ++lane) {
      const float* const row = weights + (column + lane) * k_;
      for (int64_t i = begin; i < end; ++i) packed[i * lanes + lane] = row[i];
    }
  }
}

void TileProduct::Run(int64_t m, const float* source, const float* packed, float* destination,
                      int64_t begin, int64_t end) const {
  kernels.run({n_, k_, begin, end, accumulate_, source, packed, destination}, m);
}

}  // namespace cpu
}  // namespace fastrnn
