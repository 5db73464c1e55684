// The tiles of TileProduct, compiled for each instruction set (vectors/instruction_sets.h).

constexpr int kLanes = FASTRNN_BYTES / sizeof(float);
constexpr int kRegisters = FASTRNN_BYTES == 64 ? 32 : 16;  // half of them hold a tile's sums
typedef float Lanes __attribute__((vector_size(FASTRNN_BYTES)));

FASTRNN_TARGET FASTRNN_INLINE Lanes Load(const float* from) {
  Lanes lanes;
  std::memcpy(&lanes, from, sizeof lanes);
  return lanes;
}

// `left` columns are left in the row.
FASTRNN_TARGET FASTRNN_INLINE void Put(Lanes sum, int64_t left, bool accumulate, float* to) {
  if (left >= kLanes) {
    if (accumulate) sum += Load(to);
    std::memcpy(to, &sum, sizeof sum);
  } else {
    for (int64_t lane = 0; lane < left; ++lane) {
      to[lane] = accumulate ? to[lane] + sum[lane] : sum[lane];
    }
  }
}

// kRows rows and kVectors vectors of columns. Each number is summed in kSums parts, of every
// kSums-th term: the sums of a tile are what hides an addition's latency.
template <int kSums, int kRows, int kVectors>
FASTRNN_TARGET FASTRNN_INLINE void Tile(const Tiles& at, int64_t row, int64_t vector) {
  const int64_t k = at.k;
  const float* const source = at.source + row * k;
  const float* const packed = at.packed + vector * k * kLanes;
  Lanes sums[kSums][kRows][kVectors] = {};
  int64_t i = 0;
  for (; i + kSums <= k; i += kSums) {
#pragma GCC unroll 4
    for (int s = 0; s < kSums; ++s) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        const Lanes weights = Load(packed + (v * k + i + s) * kLanes);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) sums[s][r][v] += source[r * k + i + s] * weights;
      }
    }
  }
  for (; i < k; ++i) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const Lanes weights = Load(packed + (v * k + i) * kLanes);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) sums[0][r][v] += source[r * k + i] * weights;
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      Lanes sum = sums[0][r][v];
#pragma GCC unroll 4
      for (int s = 1; s < kSums; ++s) sum += sums[s][r][v];
      const int64_t column = (vector + v) * kLanes;
      Put(sum, at.end - column, at.accumulate, at.destination + (row + r) * at.n + column);
    }
  }
}

// The rows [row, end) of kVectors vectors of columns, kRows at a time while there are as many.
template <int kSums, int kRows, int kVectors>
FASTRNN_TARGET FASTRNN_INLINE void RowsOf(const Tiles& at, int64_t row, int64_t end,
                                          int64_t vector) {
  for (; row + kRows <= end; row += kRows) Tile<kSums, kRows, kVectors>(at, row, vector);
  if constexpr (kRows > 1) RowsOf<kSums, kRows / 2, kVectors>(at, row, end, vector);
}

// These rows of all columns. The weights are read once: those of a tile are in cache for the rows
// below it.
template <int kSums, int kRows, int kVectors>
FASTRNN_TARGET FASTRNN_INLINE void Columns(const Tiles& at, int64_t row, int64_t end,
                                           int64_t vector) {
  const int64_t vectors = (at.end + kLanes - 1) / kLanes;
  for (; vector + kVectors <= vectors; vector += kVectors) {
    RowsOf<kSums, kRows, kVectors>(at, row, end, vector);
  }
  if constexpr (kVectors > 1) Columns<kSums, kRows, kVectors / 2>(at, row, end, vector);
}

template <int kSums>
FASTRNN_TARGET void Rows(const Tiles& at, int64_t m) {
  constexpr int kAccumulators = kRegisters / 2 / kSums;
  const int64_t vector = at.begin / kLanes;
  int64_t row = 0;
  if constexpr (kAccumulators == 16) {
    if (m >= 8) return Columns<kSums, 8, 3>(at, 0, m, vector);
    if (m >= 4) return Columns<kSums, 4, 4>(at, 0, m, vector);
  } else if constexpr (kAccumulators >= 4) {
    // The last rows need more vectors to hide an addition's latency.
    row = m / 4 * 4;
    Columns<kSums, 4, kAccumulators / 4>(at, 0, row, vector);
  }
  if (m - row >= 2) return Columns<kSums, 2, 4 / kSums>(at, row, m, vector);
  if (m > row) Columns<kSums, 1, 8 / kSums>(at, row, m, vector);
}

// Fewer columns have more partial sums.
FASTRNN_TARGET inline void Run(const Tiles& at, int64_t m) {
  if (at.n > 7 * kLanes) return Rows<1>(at, m);
  if (at.n > 3 * kLanes) return Rows<2>(at, m);
  Rows<4>(at, m);
}

constexpr Kernels kKernels = {kLanes, Run};
