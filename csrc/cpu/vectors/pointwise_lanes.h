// The loops over hidden units of pointwise.h, compiled for each instruction set
// (instruction_sets.h).

template <class Cell, Mode kMode, class Real>
FASTRNN_TARGET void Forward(const ForwardRow<Real>& row, Units units) {
  constexpr int G = Cell::kGates;
  const ForwardRow<Real> r = row;
  const CellOptions<Real> options = {kCells[static_cast<size_t>(kMode)].relu, r.clip};
  const int64_t H = units.hidden;
#pragma omp simd
  for (int64_t j = units.begin; j < units.end; ++j) {
    Shares<G, Real> shares;
#pragma GCC unroll 4
    for (int k = 0; k < G; ++k) {
      shares.input[k] = r.gates[k * H + j] + r.bias[k * H + j];
      shares.hidden[k] = r.h2h[k * H + j];
    }
    if (Cell::kSplitShares) shares.hidden[G - 1] += r.bias_hidden[j];
    ForwardUnit<Cell>(r, options, shares, H, j);
  }
}

template <class Cell, Mode kMode, class Real>
FASTRNN_TARGET void Backward(const BackwardRow<Real>& row, Units units) {
  constexpr int G = Cell::kGates;
  constexpr bool kRelu = kCells[static_cast<size_t>(kMode)].relu;
  const BackwardRow<Real> r = row;
  const int64_t H = units.hidden;
#pragma omp simd
  for (int64_t j = units.begin; j < units.end; ++j) {
    Seen<G, Real> seen;
    if (Cell::kKeepsGates) {
#pragma GCC unroll 4
      for (int k = 0; k < G; ++k) seen.activated.gates[k] = r.gates[k * H + j];
    } else {
      seen.h = r.y[j];
    }
    if (Cell::kSplitShares) {
      seen.activated.hidden_n = r.hidden_n[j];
      seen.h_prev = r.h_prev[j];
    }
    Real dc = 0;
    if (Cell::kHasC) {
      seen.c = r.c[j];
      seen.c_prev = r.c_prev[j];
      dc = r.dc[j];
    }
    GateGradients<G, Real> d;
    r.dh[j] = Cell::Backward(kRelu, seen, r.dy[j] + r.dh[j], &dc, &d);
    if (Cell::kHasC) r.dc[j] = dc;
#pragma GCC unroll 4
    for (int k = 0; k < G; ++k) {
      r.dgates_x[k * H + j] = d.x[k];
      if (Cell::kSplitShares) r.dgates_h[k * H + j] = d.h[k];
    }
  }
}

template <class Cell, Mode kMode, class Real>
constexpr Functions<Real> kOf = {Forward<Cell, kMode, Real>, Backward<Cell, kMode, Real>};

template <class Real>
constexpr Kernels<Real> kKernels = {
    {kOf<LstmCell, Mode::kLstm, Real>, kOf<GruCell, Mode::kGru, Real>,
     kOf<RnnCell, Mode::kRnnTanh, Real>, kOf<RnnCell, Mode::kRnnRelu, Real>},
    Forward<ClippedLstmCell, Mode::kLstm, Real>};
