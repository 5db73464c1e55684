#include "small.h"

#include <algorithm>
#include <cstring>

#include "threads.h"

#define FASTRNN_INLINE inline __attribute__((always_inline))

namespace fastrnn {
namespace cpu {
namespace {

namespace baseline {
#define FASTRNN_LANES 4
#define FASTRNN_REGISTERS 16
#define FASTRNN_TARGET
#include "small_tiles.h"
#undef FASTRNN_LANES
#undef FASTRNN_REGISTERS
#undef FASTRNN_TARGET
}  // namespace baseline

#if defined(__x86_64__)
namespace avx2 {
#define FASTRNN_LANES 8
#define FASTRNN_REGISTERS 16
#define FASTRNN_TARGET __attribute__((target("avx2,fma")))
#include "small_tiles.h"
#undef FASTRNN_LANES
#undef FASTRNN_REGISTERS
#undef FASTRNN_TARGET
}  // namespace avx2

namespace avx512 {
#define FASTRNN_LANES 16
#define FASTRNN_REGISTERS 32
#define FASTRNN_TARGET __attribute__((target("avx512f")))
#include "small_tiles.h"
#undef FASTRNN_LANES
#undef FASTRNN_REGISTERS
#undef FASTRNN_TARGET
}  // namespace avx512
#endif

struct Kernels {
  int64_t lanes;
  void (*run)(int64_t n, int64_t k, int64_t begin, int64_t end, bool accumulate, int64_t m,
              const float* source, const float* packed, float* destination);
};

template <class Tiles, void (*kRun)(const Tiles&, int64_t)>
void RunTiles(int64_t n, int64_t k, int64_t begin, int64_t end, bool accumulate, int64_t m,
              const float* source, const float* packed, float* destination) {
  kRun({n, k, begin, end, accumulate, source, packed, destination}, m);
}

Kernels ForThisProcessor() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f")) {
    return {avx512::kLanes, RunTiles<avx512::Tiles, avx512::Run>};
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return {avx2::kLanes, RunTiles<avx2::Tiles, avx2::Run>};
  }
#endif
  return {baseline::kLanes, RunTiles<baseline::Tiles, baseline::Run>};
}

const Kernels kernels = ForThisProcessor();

// The fewest weights that make up for using a thread.
constexpr int64_t kPackWork = 1 << 16;
constexpr int64_t kPackRows = 16;

}  // namespace

size_t SmallProduct::weight_bytes() const {
  return (n_ + kernels.lanes - 1) / kernels.lanes * kernels.lanes * k_ * sizeof(float);
}

bool SmallProduct::IsFastOnTallBlocks() { return kernels.lanes == 16; }

void SmallProduct::Pack(const float* weights, float* packed) const {
  const int64_t lanes = kernels.lanes, vectors = (n_ + lanes - 1) / lanes;
  const int64_t tasks = std::clamp<int64_t>(n_ * k_ / kPackWork, 1, vectors);
  ParallelFor(tasks, [&](int64_t task) {
    for (int64_t v = vectors * task / tasks; v < vectors * (task + 1) / tasks; ++v) {
      PackColumns(weights, v * lanes, lanes, packed + v * lanes * k_);
    }
  });
}

// Packs the columns from `column` on: one vector.
void SmallProduct::PackColumns(const float* weights, int64_t column, int64_t lanes,
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

void SmallProduct::Run(int64_t m, const float* source, const float* packed, float* destination,
                       int64_t begin, int64_t end) const {
  kernels.run(n_, k_, begin, end, accumulate_, m, source, packed, destination);
}

}  // namespace cpu
}  // namespace fastrnn
