#include "pointwise.h"

#include <algorithm>
#include <iterator>

#include "../../cells/traits.h"
#include "clones.h"

namespace fastrnn {
namespace cpu {
namespace {

template <class Cell, bool kRelu, class Real>
FASTRNN_HOST_DEVICE void Forward(const ForwardRow<Real>& row, Units units) {
  constexpr int G = Cell::kGates;
  const ForwardRow<Real> r = row;
  const CellOptions<Real> options = {kRelu, r.clip};
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

template <class Cell, bool kRelu, class Real>
FASTRNN_HOST_DEVICE void Backward(const BackwardRow<Real>& row, Units units) {
  constexpr int G = Cell::kGates;
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

// The modes and their cells, in the order of Mode.
#define FASTRNN_CELLS(ADD) \
  ADD(kLstm, LstmCell)     \
  ADD(kGru, GruCell)       \
  ADD(kRnnTanh, RnnCell)   \
  ADD(kRnnRelu, RnnCell)

// target_clones works on functions, not on templates. In float64 the functions of the C library
// take most of the time, and are not vectors.
#define FASTRNN_FUNCTION(clones, mode, pass, Cell, Real)                  \
  clones void mode##pass(const pass##Row<Real>& row, Units units) {       \
    pass<Cell, kCells[static_cast<size_t>(Mode::mode)].relu>(row, units); \
  }
#define FASTRNN_FUNCTIONS(mode, Cell)                           \
  FASTRNN_FUNCTION(FASTRNN_CLONES, mode, Forward, Cell, float)  \
  FASTRNN_FUNCTION(FASTRNN_CLONES, mode, Backward, Cell, float) \
  FASTRNN_FUNCTION(, mode, Forward, Cell, double)               \
  FASTRNN_FUNCTION(, mode, Backward, Cell, double)
#define FASTRNN_ENTRY(mode, Cell) {mode##Forward, mode##Backward},

FASTRNN_CELLS(FASTRNN_FUNCTIONS)

FASTRNN_CLONES void ClippedLstmForward(const ForwardRow<float>& row, Units units) {
  Forward<ClippedLstmCell, false>(row, units);
}
void ClippedLstmForward(const ForwardRow<double>& row, Units units) {
  Forward<ClippedLstmCell, false>(row, units);
}
template <class Real>
struct Functions {
  ForwardUnits<Real> forward;
  BackwardUnits<Real> backward;
};
template <class Real>
constexpr Functions<Real> kFunctions[] = {FASTRNN_CELLS(FASTRNN_ENTRY)};
static_assert(std::size(kFunctions<float>) == std::size(kCells), "the CPU lacks a cell");

template <class Real>
FASTRNN_HOST_DEVICE void AddRows(const Real* matrix, int64_t rows, int64_t stride, int64_t begin,
                                 int64_t end, bool accumulate, Real* sums) {
  if (!accumulate) std::fill(sums + begin, sums + end, Real(0));
  for (int64_t row = 0; row < rows; ++row) {
    const Real* values = matrix + row * stride;
#pragma omp simd
    for (int64_t j = begin; j < end; ++j) sums[j] += values[j];
  }
}

}  // namespace

template <class Real>
ForwardUnits<Real> ForwardOf(const LayerDesc& desc) {
  if (desc.clip.clips()) return ClippedLstmForward;
  return kFunctions<Real>[static_cast<size_t>(desc.mode)].forward;
}
template <class Real>
BackwardUnits<Real> BackwardOf(Mode mode) {
  return kFunctions<Real>[static_cast<size_t>(mode)].backward;
}
template ForwardUnits<float> ForwardOf<float>(const LayerDesc& desc);
template ForwardUnits<double> ForwardOf<double>(const LayerDesc& desc);
template BackwardUnits<float> BackwardOf<float>(Mode mode);
template BackwardUnits<double> BackwardOf<double>(Mode mode);

FASTRNN_CLONES void SumRows(const float* matrix, int64_t rows, int64_t stride, int64_t begin,
                            int64_t end, bool accumulate, float* sums) {
  AddRows(matrix, rows, stride, begin, end, accumulate, sums);
}
FASTRNN_CLONES void SumRows(const double* matrix, int64_t rows, int64_t stride, int64_t begin,
                            int64_t end, bool accumulate, double* sums) {
  AddRows(matrix, rows, stride, begin, end, accumulate, sums);
}

}  // namespace cpu
}  // namespace fastrnn
