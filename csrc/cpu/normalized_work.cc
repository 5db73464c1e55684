// The Work of layer-normalised layers (work.h). A row's cells need sums over the row, so threads
// take whole rows.
#include <algorithm>

#include "threads.h"
#include "units.h"
#include "work.h"

namespace fastrnn {
namespace cpu {
namespace {

// The hidden units of a task, and the least for more than one thread.
constexpr int64_t kTaskUnits = 4096;

// Calls body(first, end) for rows of `hidden` units.
template <class Body>
void ForRows(int64_t rows, int64_t hidden, Body body) {
  if (rows * hidden < kTaskUnits) return body(0, rows);
  const int64_t task_rows = std::max<int64_t>(1, kTaskUnits / hidden);
  ParallelFor((rows + task_rows - 1) / task_rows, [&](int64_t task) {
    body(task * task_rows, std::min((task + 1) * task_rows, rows));
  });
}

// A layer's rows of gates, with the parts that are normalised separately.
template <class T>
struct GateRows {
  int64_t gates;  // G*H
  int64_t first;  // the values of the first part
  int64_t parts;

  explicit GateRows(const LayerDesc& desc)
      : gates(desc.gate_rows()), first(FirstNormPart(desc)), parts(NormParts(desc)) {}

  // Of some rows of products, by part and row.
  void FindMoments(int64_t rows, const T* products, Moments<T> (*to)[kNormGroup]) const {
    RowMoments(rows, first, gates, products, to[0]);
    if (parts == 2) RowMoments(rows, gates - first, gates, products + first, to[1]);
  }
  // d and `to` may be the same rows.
  void Gradient(int64_t rows, const T* d, const T* gamma, const T* normalized, const T* rstd,
                T* to) const {
    NormalizeGradient(
        NormGradientRows<T>{rows, first, gates, d, gamma, normalized, rstd, parts, to});
    if (parts == 1) return;
    NormalizeGradient(NormGradientRows<T>{rows, gates - first, gates, d + first, gamma + first,
                                          normalized + first, rstd + 1, parts, to + first});
  }
};

}  // namespace

// ---- forward ------------------------------------------------------------------------------------

template <class T>
void ForwardWork<T>::RunNormalizedRow(const LayerDesc& desc, const ForwardStep<T>& step,
                                      const NormalizedForwardRow<T>& row, int64_t n) {
  const GateRows<T> of(desc);
  const Units units = {desc.hidden, 0, desc.hidden};
  if (IsActive(step, n)) {
    NormalizedForward(desc.mode, row);
    if (desc.has_c() && step.c_n != nullptr) Copy(row.cells.c, units, step.c_n + n * desc.hidden);
    return;
  }
  RunUnits(desc, step, n, units);
  if (row.normalized_input == nullptr) return;
  // Backward multiplies zeros with these: what the inputs are there may be NaN.
  std::fill_n(row.normalized_input, of.gates, T(0));
  std::fill_n(row.normalized_hidden, of.gates, T(0));
  std::fill_n(row.input_rstd, of.parts, T(0));
  std::fill_n(row.hidden_rstd, of.parts, T(0));
}

template <class T>
void ForwardWork<T>::RunNormalizedGroup(const LayerDesc& desc, const ForwardStep<T>& step,
                                        const Parameters<const T>& weights, Rows rows) {
  const GateRows<T> of(desc);
  const int64_t H = desc.hidden;
  int64_t count = rows.end - rows.begin;
  while (count > 0 && !IsActive(step, rows.begin + count - 1)) --count;  // ended rows need none
  Moments<T> input[2][kNormGroup] = {}, hidden[2][kNormGroup] = {}, c[kNormGroup] = {};
  const ForwardRow<T> first = RowOf(desc, step, rows.begin);
  of.FindMoments(count, first.gates, input);
  of.FindMoments(count, first.h2h, hidden);
  for (int64_t n = rows.begin; n < rows.end; ++n) {
    const int64_t k = n - rows.begin;
    RunNormalizedRow(desc, step,
                     {RowOf(desc, step, n),
                      H,
                      {input[0][k], input[1][k]},
                      {hidden[0][k], hidden[1][k]},
                      weights.i2h_gamma,
                      weights.h2h_gamma,
                      At(step.normalized_input, n * of.gates),
                      At(step.normalized_hidden, n * of.gates),
                      At(step.input_rstd, n * of.parts),
                      At(step.hidden_rstd, n * of.parts)},
                     n);
  }
  if (!desc.has_c()) return;
  RowMoments(count, H, H, step.c + rows.begin * H, c);
  for (int64_t n = rows.begin; n < rows.end; ++n) {
    if (!IsActive(step, n)) continue;
    const Moments<T> moments = c[n - rows.begin];
    if (step.c_moments != nullptr) {
      step.c_moments[n * 2] = moments.mean;
      step.c_moments[n * 2 + 1] = moments.rstd;
    }
    T* const h = step.h + n * H;
    NormalizedOutput(OutputRow<T>{H, h, step.c + n * H, weights.c_gamma, weights.c_beta, moments, h,
                                  step.y + n * step.y_stride});
  }
}

template <class T>
void ForwardWork<T>::RunNormalized(const LayerDesc& desc, const ForwardStep<T>& step,
                                   const Parameters<const T>& weights) {
  ForRows(step.rows, desc.hidden, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; n += kNormGroup) {
      RunNormalizedGroup(desc, step, weights, {n, std::min(n + kNormGroup, end)});
    }
  });
}

// ---- backward -----------------------------------------------------------------------------------

template <class T>
void BackwardWork<T>::RunNormalizedRow(const LayerDesc& desc, const BackwardStep<T>& step,
                                       const Parameters<const T>& weights, int64_t n) {
  const int64_t H = desc.hidden, GH = desc.gate_rows();
  if (!desc.has_c() || !PresenceOf(step, n).active) {
    RunUnits(desc, step, n, {H, 0, H});
    if (!desc.has_c()) return;
    std::fill_n(step.dc_gamma + n * H, H, T(0));
    std::fill_n(step.dc_beta + n * H, H, T(0));
    return;
  }
  const T* const c_prev = step.c_0 != nullptr ? step.c_0 : step.c_prev;
  NormalizedLstmBackward(NormalizedLstmRow<T>{H,
                                              step.gates + n * GH,
                                              c_prev + n * H,
                                              step.c + n * H,
                                              {step.c_moments[n * 2], step.c_moments[n * 2 + 1]},
                                              weights.c_gamma,
                                              weights.c_beta,
                                              step.dy + n * step.y_stride,
                                              step.dh + n * H,
                                              step.dc + n * H,
                                              step.dgates_x + n * GH,
                                              step.dc_gamma + n * H,
                                              step.dc_beta + n * H});
}

template <class T>
void BackwardWork<T>::RunNormalized(const LayerDesc& desc, const BackwardStep<T>& step,
                                    const Parameters<const T>& weights) {
  const GateRows<T> of(desc);
  BackwardStep<T> cells = step;
  cells.dgates_h = step.dshare_h;
  ForRows(step.rows, desc.hidden, [&](int64_t first, int64_t end) {
    for (int64_t n = first; n < end; ++n) RunNormalizedRow(desc, cells, weights, n);
    const int64_t gates = first * of.gates;
    of.Gradient(end - first, step.dshare_h + gates, weights.h2h_gamma,
                step.normalized_hidden + gates, step.hidden_rstd + first * of.parts,
                step.dgates_h + gates);
    for (int64_t n = first; n < end; ++n) {
      if (!PresenceOf(step, n).first) continue;
      std::copy_n(step.dgates_h + n * of.gates, of.gates, step.dgates_first + n * of.gates);
    }
  });
}

// Biases and gammas come after the normalisation: their gradients are summed before dgates_x passes
// it.
template <class T>
void BackwardWork<T>::NormGradients(const LayerDesc& desc, const NormChunk<T>& p) const {
  const GateRows<T> of(desc);
  const int64_t GH = of.gates, H = desc.hidden;
  const bool split = desc.cell().split_shares;
  const auto sum = [&](int64_t, Units units) {
    const T* const second = split ? nullptr : p.normalized_hidden;
    SumNorm({p.dgates_x,
             p.rows,
             GH,
             p.accumulate,
             p.sums.i2h_bias,
             {p.normalized_input, second},
             {p.sums.i2h_gamma, p.sums.h2h_gamma}},
            units.begin, units.end);
    if (!split) return Copy(p.sums.i2h_bias, units, p.sums.h2h_bias);
    SumNorm({p.dshare_h,
             p.rows,
             GH,
             p.accumulate,
             p.sums.h2h_bias,
             {p.normalized_hidden, nullptr},
             {p.sums.h2h_gamma, nullptr}},
            units.begin, units.end);
  };
  ForUnits(1, GH, sum, p.rows);
  if (desc.has_c()) {
    SumRows(p.dc_gamma, p.rows, H, p.accumulate, p.sums.c_gamma, nullptr);
    SumRows(p.dc_beta, p.rows, H, p.accumulate, p.sums.c_beta, nullptr);
  }
  ForRows(p.rows, H, [&](int64_t first, int64_t end) {
    T* const own = p.dgates_x + first * GH;
    of.Gradient(end - first, own, p.i2h_gamma, p.normalized_input + first * GH,
                p.input_rstd + first * of.parts, own);
  });
}

#define FASTRNN_INSTANTIATE(T)                                                           \
  template void ForwardWork<T>::RunNormalized(const LayerDesc&, const ForwardStep<T>&,   \
                                              const Parameters<const T>&);               \
  template void BackwardWork<T>::RunNormalized(const LayerDesc&, const BackwardStep<T>&, \
                                               const Parameters<const T>&);              \
  template void BackwardWork<T>::NormGradients(const LayerDesc&, const NormChunk<T>&) const;
FASTRNN_INSTANTIATE(float)
FASTRNN_INSTANTIATE(double)

}  // namespace cpu
}  // namespace fastrnn
