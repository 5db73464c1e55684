// The rows of layer_norm.h, compiled for each instruction set (instruction_sets.h). The compiler's
// own vectors of a sum end in one addition after another, which takes longer than a row of a small
// layer does otherwise.

template <class Real, int kBytes = FASTRNN_BYTES>
struct Vector {
  typedef Real Lanes __attribute__((vector_size(kBytes)));
  static constexpr int64_t kLanes = kBytes / sizeof(Real);
};

template <class Real>
FASTRNN_TARGET FASTRNN_INLINE auto Load(const Real* from) {
  typename Vector<Real>::Lanes lanes;
  std::memcpy(&lanes, from, sizeof lanes);
  return lanes;
}

// The last values of a row, of which `left` are left; `rest` stands for those past its end.
template <class Real>
FASTRNN_TARGET FASTRNN_INLINE auto LoadLast(const Real* from, int64_t left, Real rest) {
  if (left >= Vector<Real>::kLanes) return Load(from);
  typename Vector<Real>::Lanes lanes = typename Vector<Real>::Lanes{} + rest;
  std::memcpy(&lanes, from, static_cast<size_t>(left) * sizeof(Real));
  return lanes;
}

template <class Real, int kBytes = FASTRNN_BYTES>
FASTRNN_TARGET FASTRNN_INLINE Real Total(typename Vector<Real, kBytes>::Lanes lanes) {
  if constexpr (kBytes > 16) {
    typename Vector<Real, kBytes / 2>::Lanes low, high;
    std::memcpy(&low, &lanes, sizeof low);
    std::memcpy(&high, reinterpret_cast<const char*>(&lanes) + sizeof low, sizeof high);
    return Total<Real, kBytes / 2>(low + high);
  } else {
    Real sum = lanes[0] + lanes[1];
    if constexpr (Vector<Real, kBytes>::kLanes == 4) sum += lanes[2] + lanes[3];
    return sum;
  }
}

// Several sums at once: a single one would have every addition wait for the one before.
constexpr int kSums = 4;
template <class Real>
FASTRNN_TARGET FASTRNN_INLINE Real SumOf(int64_t n, const Real* values) {
  constexpr int64_t kLanes = Vector<Real>::kLanes;
  typename Vector<Real>::Lanes sums[kSums] = {};
  int64_t j = 0;
  for (; j + kSums * kLanes <= n; j += kSums * kLanes) {
#pragma GCC unroll 4
    for (int k = 0; k < kSums; ++k) sums[k] += Load(values + j + k * kLanes);
  }
  for (; j < n; j += kLanes) sums[0] += LoadLast(values + j, n - j, Real(0));
  return Total<Real>((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

template <class Real>
FASTRNN_TARGET FASTRNN_INLINE Real SquaresAround(Real mean, int64_t n, const Real* values) {
  constexpr int64_t kLanes = Vector<Real>::kLanes;
  typename Vector<Real>::Lanes sums[kSums] = {};
  int64_t j = 0;
  for (; j + kSums * kLanes <= n; j += kSums * kLanes) {
#pragma GCC unroll 4
    for (int k = 0; k < kSums; ++k) {
      const auto distance = mean - Load(values + j + k * kLanes);
      sums[k] += distance * distance;
    }
  }
  for (; j < n; j += kLanes) {
    const auto distance = mean - LoadLast(values + j, n - j, mean);
    sums[0] += distance * distance;
  }
  return Total<Real>((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// The variance is a second pass over the row, which is in the cache: a difference of large numbers
// would lose its digits.
template <class Real>
FASTRNN_TARGET FASTRNN_INLINE Moments<Real> MomentsOf(int64_t n, const Real* values) {
  const Real count = static_cast<Real>(n), epsilon = kNormEpsilon;
  const Real mean = SumOf(n, values) / count;
  // Not the quotient of 1, which hides a variance that overflows: this one is NaN then.
  const Real variance = SquaresAround(mean, n, values) / count + epsilon;
  return {mean, std::sqrt(variance) / variance};
}

template <class Real>
FASTRNN_TARGET void RowMoments(int64_t rows, int64_t n, int64_t stride, const Real* values,
                               Moments<Real>* to) {
  for (int64_t row = 0; row < rows; ++row) to[row] = MomentsOf(n, values + row * stride);
}

// Whether the products are kept is known when this is compiled: of a condition in the loop the
// compiler makes masked stores, which take ten times as long as others on a Zen 3.
template <class Cell, bool kKeeps, class Real>
FASTRNN_TARGET FASTRNN_INLINE void NormalizedForwardOf(const NormalizedForwardRow<Real>& row) {
  constexpr int G = Cell::kGates, kParts = Cell::kSplitShares ? 2 : 1;
  const NormalizedForwardRow<Real> r = row;
  const int64_t H = r.hidden;
  const CellOptions<Real> options = {};
  for (int part = 0; kKeeps && part < kParts; ++part) {
    r.input_rstd[part] = r.of_input[part].rstd;
    r.hidden_rstd[part] = r.of_hidden[part].rstd;
  }
#pragma omp simd
  for (int64_t j = 0; j < H; ++j) {
    Shares<G, Real> shares;
#pragma GCC unroll 4
    for (int k = 0; k < G; ++k) {
      const int64_t at = k * H + j;
      const Moments<Real>& of_input = r.of_input[k == G - 1 ? kParts - 1 : 0];
      const Moments<Real>& of_hidden = r.of_hidden[k == G - 1 ? kParts - 1 : 0];
      const Real x = (r.cells.gates[at] - of_input.mean) * of_input.rstd;
      const Real h = (r.cells.h2h[at] - of_hidden.mean) * of_hidden.rstd;
      if (kKeeps) {
        r.normalized_input[at] = x;
        r.normalized_hidden[at] = h;
      }
      shares.input[k] = r.i2h_gamma[at] * x + r.cells.bias[at];
      shares.hidden[k] = r.h2h_gamma[at] * h;
    }
    if (Cell::kSplitShares) shares.hidden[G - 1] += r.cells.bias_hidden[j];
    ForwardUnit<Cell>(r.cells, options, shares, H, j);
  }
}
template <class Cell, class Real>
FASTRNN_TARGET void NormalizedForward(const NormalizedForwardRow<Real>& row) {
  if (row.normalized_input != nullptr) return NormalizedForwardOf<Cell, true>(row);
  NormalizedForwardOf<Cell, false>(row);
}

// The means over a row of d * gamma, and of its product with what is normalised.
template <class Real>
struct Along {
  Real mean, slope;
};
template <class Real>
FASTRNN_TARGET FASTRNN_INLINE Along<Real> MeansAlong(int64_t n, const Real* d, const Real* gamma,
                                                     const Real* normalized) {
  constexpr int64_t kLanes = Vector<Real>::kLanes;
  typename Vector<Real>::Lanes ones[2] = {}, along[2] = {};
  int64_t j = 0;
  for (; j + 2 * kLanes <= n; j += 2 * kLanes) {
#pragma GCC unroll 2
    for (int k = 0; k < 2; ++k) {
      const int64_t at = j + k * kLanes;
      const auto product = Load(d + at) * Load(gamma + at);
      ones[k] += product;
      along[k] += product * Load(normalized + at);
    }
  }
  for (; j < n; j += kLanes) {
    const int64_t left = n - j;
    const auto product = LoadLast(d + j, left, Real(0)) * LoadLast(gamma + j, left, Real(0));
    ones[0] += product;
    along[0] += product * LoadLast(normalized + j, left, Real(0));
  }
  const Real count = static_cast<Real>(n);
  return {Total<Real>(ones[0] + ones[1]) / count, Total<Real>(along[0] + along[1]) / count};
}

template <class Real>
FASTRNN_TARGET void NormalizeGradient(const NormGradientRows<Real>& rows) {
  const NormGradientRows<Real> r = rows;
  for (int64_t first = 0; first < r.rows; first += kNormGroup) {
    const int64_t count = std::min(kNormGroup, r.rows - first);
    Along<Real> means[kNormGroup];
    for (int64_t k = 0; k < count; ++k) {
      const int64_t row = (first + k) * r.stride;
      means[k] = MeansAlong(r.n, r.d + row, r.gamma, r.normalized + row);
    }
    for (int64_t k = 0; k < count; ++k) {
      const int64_t row = (first + k) * r.stride;
      const Real rstd = r.rstd[(first + k) * r.rstd_stride], mean = means[k].mean;
      const Real slope = means[k].slope;
      const Real *const d = r.d + row, *const gamma = r.gamma, *const x = r.normalized + row;
      Real* const to = r.to + row;
#pragma omp simd
      for (int64_t j = 0; j < r.n; ++j) to[j] = rstd * (d[j] * gamma[j] - mean - x[j] * slope);
    }
  }
}

template <class Real>
FASTRNN_TARGET void NormalizedOutput(const OutputRow<Real>& row) {
  const OutputRow<Real> r = row;
#pragma omp simd
  for (int64_t j = 0; j < r.hidden; ++j) {
    const Real c = (r.c[j] - r.moments.mean) * r.moments.rstd;
    r.h[j] = r.y[j] = NormalizedLstmCell::Output(r.o[j], r.gamma[j] * c + r.beta[j]);
  }
}

template <class Real>
FASTRNN_TARGET void NormalizedLstmBackward(const NormalizedLstmRow<Real>& row) {
  const NormalizedLstmRow<Real> r = row;
  const int64_t H = r.hidden;
  const Real mean_c = r.moments.mean, rstd = r.moments.rstd;
#pragma omp simd
  for (int64_t j = 0; j < H; ++j) {
    const Real c = (r.c[j] - mean_c) * rstd;
    const NormalizedLstmCell::OutputGradients<Real> d = NormalizedLstmCell::OfOutput(
        r.gates[3 * H + j], r.gamma[j] * c + r.beta[j], r.dy[j] + r.dh[j]);
    r.dgates[3 * H + j] = d.o;
    r.dc_beta[j] = d.c;
    r.dc_gamma[j] = c;  // until the means are known
    r.dh[j] = 0;
  }
  const Along<Real> means = MeansAlong(H, r.dc_beta, r.gamma, r.dc_gamma);
#pragma omp simd
  for (int64_t j = 0; j < H; ++j) {
    const Real c = r.dc_gamma[j], d_seen = r.dc_beta[j];
    r.dc_gamma[j] = d_seen * c;
    const Real dc = r.dc[j] + rstd * (d_seen * r.gamma[j] - means.mean - c * means.slope);
    Seen<4, Real> seen;
#pragma GCC unroll 3
    for (int k = 0; k < 3; ++k) seen.activated.gates[k] = r.gates[k * H + j];
    seen.c_prev = r.c_prev[j];
    GateGradients<4, Real> d;
    r.dc[j] = NormalizedLstmCell::OfCellState(seen, dc, &d);
#pragma GCC unroll 3
    for (int k = 0; k < 3; ++k) r.dgates[k * H + j] = d.x[k];
  }
}

template <class Real>
constexpr Kernels<Real> kKernels = {RowMoments<Real>,
                                    NormalizedForward<NormalizedLstmCell, Real>,
                                    NormalizedForward<GruCell, Real>,
                                    NormalizeGradient<Real>,
                                    NormalizedOutput<Real>,
                                    NormalizedLstmBackward<Real>};
