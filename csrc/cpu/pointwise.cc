#include "pointwise.h"

#include <algorithm>
#include <iterator>

#include "../cells/traits.h"

// One binary serves every x86-64 processor: the loader picks the clone. Clones are named by
// feature, because an architecture's name matches only its vendor's models. Processors other than
// x86-64 have vectors in their baseline.
#if defined(__x86_64__)
#define FASTRNN_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FASTRNN_CLONES
#endif

namespace fastrnn {
namespace cpu {
namespace {

template <class Cell, bool kRelu>
FASTRNN_HOST_DEVICE void Forward(const ForwardRow& row, Units units) {
  constexpr int G = Cell::kGates;
  const ForwardRow r = row;
  const CellOptions options = {kRelu, r.clip};
  const int64_t H = units.hidden;
#pragma omp simd
  for (int64_t j = units.begin; j < units.end; ++j) {
    Shares<G> shares;
#pragma GCC unroll 4
    for (int k = 0; k < G; ++k) {
      shares.input[k] = r.gates[k * H + j] + r.bias[k * H + j];
      shares.hidden[k] = r.h2h[k * H + j];
    }
    if (Cell::kSplitShares) shares.hidden[G - 1] += r.bias_hidden[j];
    UnitState state = {0.0f, 0.0f};
    if (Cell::kSplitShares) state.h = r.h_prev[j];
    if (Cell::kHasC) state.c = r.c_prev[j];
    Activated<G> activated;
    Cell::Forward(options, shares, &state, &activated);
    if (Cell::kKeepsGates) {
#pragma GCC unroll 4
      for (int k = 0; k < G; ++k) r.gates[k * H + j] = activated.gates[k];
    }
    if (Cell::kSplitShares) r.hidden_n[j] = activated.hidden_n;
    if (Cell::kHasC) r.c[j] = state.c;
    r.h[j] = state.h;
    r.y[j] = state.h;
  }
}

template <class Cell, bool kRelu>
FASTRNN_HOST_DEVICE void Backward(const BackwardRow& row, Units units) {
  constexpr int G = Cell::kGates;
  const BackwardRow r = row;
  const int64_t H = units.hidden;
#pragma omp simd
  for (int64_t j = units.begin; j < units.end; ++j) {
    Seen<G> seen;
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
    float dc = 0.0f;
    if (Cell::kHasC) {
      seen.c = r.c[j];
      seen.c_prev = r.c_prev[j];
      dc = r.dc[j];
    }
    GateGradients<G> d;
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

// target_clones works on functions, not on templates.
#define FASTRNN_FUNCTIONS(mode, Cell)                                         \
  FASTRNN_CLONES void mode##Forward(const ForwardRow& row, Units units) {     \
    Forward<Cell, kCells[static_cast<size_t>(Mode::mode)].relu>(row, units);  \
  }                                                                           \
  FASTRNN_CLONES void mode##Backward(const BackwardRow& row, Units units) {   \
    Backward<Cell, kCells[static_cast<size_t>(Mode::mode)].relu>(row, units); \
  }
#define FASTRNN_ENTRY(mode, Cell) {mode##Forward, mode##Backward},

FASTRNN_CELLS(FASTRNN_FUNCTIONS)

FASTRNN_CLONES void ClippedLstmForward(const ForwardRow& row, Units units) {
  Forward<ClippedLstmCell, false>(row, units);
}

struct Functions {
  ForwardUnits forward;
  BackwardUnits backward;
};
constexpr Functions kFunctions[] = {FASTRNN_CELLS(FASTRNN_ENTRY)};
static_assert(std::size(kFunctions) == std::size(kCells), "the CPU lacks a cell");

}  // namespace

ForwardUnits ForwardOf(const LayerDesc& desc) {
  return desc.clip.clips() ? ClippedLstmForward
                           : kFunctions[static_cast<size_t>(desc.mode)].forward;
}
BackwardUnits BackwardOf(Mode mode) { return kFunctions[static_cast<size_t>(mode)].backward; }

FASTRNN_CLONES void SumRows(const float* matrix, int64_t rows, int64_t stride, int64_t begin,
                            int64_t end, bool accumulate, float* sums) {
  if (!accumulate) std::fill(sums + begin, sums + end, 0.0f);
  for (int64_t row = 0; row < rows; ++row) {
    const float* values = matrix + row * stride;
#pragma omp simd
    for (int64_t j = begin; j < end; ++j) sums[j] += values[j];
  }
}

}  // namespace cpu
}  // namespace fastrnn
