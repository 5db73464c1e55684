// The Work of layer-normalised layers (work.h). A row's cells need sums over the row, so threads
// take whole rows.
#include <algorithm>

#include "layer_norm.h"
#include "threads.h"
#include "work.h"

namespace fastrnn {
namespace cpu {
namespace {

// The hidden units of a task, and the least for more than one thread.
constexpr int64_t kTaskUnits = 4096;

// Calls body(row) for each row of `hidden` units.
template <class Body>
void ForRows(int64_t rows, int64_t hidden, Body body) {
  const auto run = [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) body(row);
  };
  if (rows * hidden < kTaskUnits) return run(0, rows);
  const int64_t task_rows = std::max<int64_t>(1, kTaskUnits / hidden);
  ParallelFor((rows + task_rows - 1) / task_rows,
              [&](int64_t task) { run(task * task_rows, std::min((task + 1) * task_rows, rows)); });
}

// A layer's rows of gates, with the parts that are normalised separately.
template <class T>
struct GateRows {
  int64_t gates;  // G*H
  int64_t first;  // the values of the first part
  int64_t parts;

  explicit GateRows(const LayerDesc& desc)
      : gates(desc.gate_rows()), first(FirstNormPart(desc)), parts(NormParts(desc)) {}

  // `normalized` and `rstd` may be null.
  void Normalize(const T* gamma, T* row, T* normalized, T* rstd) const {
    cpu::Normalize({first, gamma, row, normalized, rstd});
    if (parts == 1) return;
    cpu::Normalize({gates - first, gamma + first, row + first, At(normalized, first), At(rstd, 1)});
  }

  // d and `to` may be the same row.
  void Gradient(const T* d, const T* gamma, const T* normalized, const T* rstd, T* to) const {
    NormalizeGradient(NormGradientRow<T>{first, d, gamma, normalized, rstd[0], to});
    if (parts == 1) return;
    NormalizeGradient(NormGradientRow<T>{gates - first, d + first, gamma + first,
                                         normalized + first, rstd[1], to + first});
  }
};

}  // namespace

// ---- forward ------------------------------------------------------------------------------------

template <class T>
void ForwardWork<T>::Normalize(const LayerDesc& desc, const NormalizedRows<T>& rows) const {
  const GateRows<T> of(desc);
  const int64_t N = desc.batch;
  ForRows(rows.rows, desc.hidden, [&](int64_t i) {
    T* const normalized = At(rows.normalized, i * of.gates);
    T* const rstd = At(rows.rstd, i * of.parts);
    if (rows.lengths == nullptr || rows.time + i / N < rows.lengths[i % N]) {
      return of.Normalize(rows.gamma, rows.products + i * of.gates, normalized, rstd);
    }
    if (normalized == nullptr) return;
    std::fill_n(normalized, of.gates, T(0));
    std::fill_n(rstd, of.parts, T(0));
  });
}

template <class T>
void ForwardWork<T>::RunNormalized(const LayerDesc& desc, const ForwardStep<T>& step,
                                   const Parameters<const T>& weights) {
  const int64_t H = desc.hidden;
  Normalize(desc, {step.time, step.rows, step.lengths, sums_, weights.h2h_gamma,
                   step.normalized_hidden, step.hidden_rstd});
  ForRows(step.rows, H, [&](int64_t n) {
    RunUnits(desc, step, n, {H, 0, H});
    if (!desc.has_c() || (step.lengths != nullptr && step.time >= step.lengths[n])) return;
    T* const h = step.h + n * H;
    NormalizedOutput(OutputRow<T>{H, h, step.c + n * H, weights.c_gamma, weights.c_beta,
                                  At(step.c_moments, n * 2), h, step.y + n * step.y_stride});
  });
}

// ---- backward -----------------------------------------------------------------------------------

template <class T>
void BackwardWork<T>::RunNormalized(const LayerDesc& desc, const BackwardStep<T>& step,
                                    const Parameters<const T>& weights) {
  const GateRows<T> of(desc);
  const int64_t H = desc.hidden, GH = of.gates;
  const T* const c_prev = step.c_0 != nullptr ? step.c_0 : step.c_prev;
  BackwardStep<T> cells = step;
  cells.dgates_h = step.dshare_h;
  ForRows(step.rows, H, [&](int64_t n) {
    const Presence present = PresenceOf(step, n);
    if (present.active && desc.has_c()) {
      NormalizedLstmBackward(NormalizedLstmRow<T>{
          H, step.gates + n * GH, c_prev + n * H, step.c + n * H, step.c_moments + n * 2,
          weights.c_gamma, weights.c_beta, step.dy + n * step.y_stride, step.dh + n * H,
          step.dc + n * H, step.dgates_x + n * GH, step.dc_gamma + n * H, step.dc_beta + n * H});
    } else {
      RunUnits(desc, cells, n, {H, 0, H});
    }
    if (!present.active && desc.has_c()) {
      std::fill_n(step.dc_gamma + n * H, H, T(0));
      std::fill_n(step.dc_beta + n * H, H, T(0));
    }
    T* const dgates_h = step.dgates_h + n * GH;
    of.Gradient(step.dshare_h + n * GH, weights.h2h_gamma, step.normalized_hidden + n * GH,
                step.hidden_rstd + n * of.parts, dgates_h);
    if (present.first) std::copy_n(dgates_h, GH, step.dgates_first + n * GH);
  });
}

template <class T>
void BackwardWork<T>::NormalizeGradients(const LayerDesc& desc, int64_t rows, const T* gamma,
                                         const T* normalized, const T* rstd, T* dgates) const {
  const GateRows<T> of(desc);
  ForRows(rows, desc.hidden, [&](int64_t row) {
    T* const own = dgates + row * of.gates;
    of.Gradient(own, gamma, normalized + row * of.gates, rstd + row * of.parts, own);
  });
}

#define FASTRNN_INSTANTIATE(T)                                                                     \
  template void ForwardWork<T>::Normalize(const LayerDesc&, const NormalizedRows<T>&) const;       \
  template void ForwardWork<T>::RunNormalized(const LayerDesc&, const ForwardStep<T>&,             \
                                              const Parameters<const T>&);                         \
  template void BackwardWork<T>::RunNormalized(const LayerDesc&, const BackwardStep<T>&,           \
                                               const Parameters<const T>&);                        \
  template void BackwardWork<T>::NormalizeGradients(const LayerDesc&, int64_t, const T*, const T*, \
                                                    const T*, T*) const;
FASTRNN_INSTANTIATE(float)
FASTRNN_INSTANTIATE(double)

}  // namespace cpu
}  // namespace fastrnn
