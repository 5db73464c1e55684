#include "work.h"

#include <algorithm>

#include "units.h"

namespace fastrnn {
namespace cpu {
namespace {

// Rows of a chunk: few enough for a small workspace, and enough for products at full rate and to
// hide one pass over the weight gradients per chunk. Gradients of this many weights or fewer stay
// in the cache, and so do the arrays of a chunk of fewer rows. But with this many columns, oneDNN's
// AVX2 products of 512 rows reach 50 GFLOP/s, of 1,024 rows 80 (one thread of a Zen 3). With very
// few weights, a chunk of fewer rows takes less time than threads take to meet at its end. With
// AVX-512, 256 and 512 units take as long either way.
constexpr int64_t kChunkRows = 2048;
constexpr int64_t kVeryFewWeights = 1 << 13;
constexpr int64_t kFewWeights = 1 << 19;
constexpr int64_t kManyColumns = 512;
constexpr int64_t kChunkRowsOfFewWeights = 512;

// Calls body(k * H) for each gate.
template <class Body>
void ForGates(const LayerDesc& desc, Body body) {
  for (int64_t k = 0; k < desc.gate_rows(); k += desc.hidden) body(k);
}

}  // namespace

int64_t ChunkRows(const LayerDesc& desc) {
  const int64_t columns = std::max(desc.input, desc.outputs());
  const int64_t weights = desc.gate_rows() * columns;
  const bool few_meetings = weights <= kVeryFewWeights && Split::Of(desc).blocks > 1;
  const bool fewer_rows = weights <= kFewWeights && columns < kManyColumns && !few_meetings;
  return fewer_rows ? kChunkRowsOfFewWeights : kChunkRows;
}

// ---- forward ------------------------------------------------------------------------------------

template <class T>
ForwardBuffers<T>::ForwardBuffers(const LayerDesc& desc, const StepProducts<T>& products,
                                  Carver* carver)
    : products(products.Take(carver)) {
  sums = carver->Take<T>(desc.batch * SumsOfRow(desc));
  bias = carver->Take<T>(desc.gate_rows());
  const int64_t chunk_rows = Walk(desc, 0, ChunkRows(desc)).chunk_steps * desc.batch;
  const bool in_reserve = GatesInReserve(desc) && SizeOf(desc.dtype) == sizeof(T);
  gates = in_reserve ? nullptr : carver->Take<T>(chunk_rows * desc.gate_rows());
  const bool needs_r = desc.projected() && !desc.reserve;
  r = needs_r ? carver->Take<T>(desc.batch * desc.hidden) : nullptr;
  noise.Take(desc, carver);
}

template <class T>
void ForwardBuffers<T>::SumBiases(const LayerDesc& desc, const Parameters<const T>& weights) const {
  // If the last gate's shares are split, the sum excludes its h2h bias.
  const int64_t both = desc.gate_rows() - (desc.cell().split_shares ? desc.hidden : 0);
  for (int64_t j = 0; j < desc.gate_rows(); ++j) {
    bias[j] = weights.i2h_bias[j] + (j < both ? weights.h2h_bias[j] : T(0));
  }
}

template <class T>
ForwardWork<T>::ForwardWork(const LayerDesc& desc, BlockProducts<T> products,
                            const ForwardBuffers<T>& buffers, Rows rows, const Key& key)
    : NoiseWork(key),
      products_(std::move(products)),
      units_(ForwardOf<T>(desc)),
      sums_(buffers.sums + rows.begin * SumsOfRow(desc)),
      bias_(buffers.bias) {}

template <class T>
void ForwardWork<T>::Step(const LayerDesc& desc, const ForwardStep<T>& step,
                          const Parameters<const T>& weights) {
  products_.h2h.Run(step.h_prev, sums_);
  if (desc.layer_norm) return RunNormalized(desc, step, weights);
  if (!desc.projected()) return RunCells(desc, step);
  RunCells(desc, OfCells(step));
  Project(step);
}

template <class T>
void ForwardWork<T>::Project(const ForwardStep<T>& step) {
  products_.h2r->Run(step.r, sums_);
  ForUnits(step.rows, step.outputs, [&](int64_t n, Units units) {
    T* const y = step.y + n * step.y_stride;
    T* const h = step.h + n * step.outputs;
    if (!IsActive(step, n)) {
      std::fill(y + units.begin, y + units.end, T(0));
      return Copy(step.h_prev + n * step.outputs, units, h);
    }
    Copy(sums_ + n * step.outputs, units, h);
    Copy(sums_ + n * step.outputs, units, y);
  });
}

template <class T>
void ForwardWork<T>::RunCells(const LayerDesc& desc, const ForwardStep<T>& step) {
  ForUnits(step.rows, desc.hidden, [&](int64_t n, Units units) { RunUnits(desc, step, n, units); });
}

template <class T>
ForwardRow<T> ForwardWork<T>::RowOf(const LayerDesc& desc, const ForwardStep<T>& step,
                                    int64_t n) const {
  const int64_t H = desc.hidden, GH = desc.gate_rows();
  // Without a reserve the activated gates, which nothing reads, overwrite their own chunk's sums.
  T* const gates = step.gates != nullptr ? step.gates : const_cast<T*>(step.input_sum);
  T* const share = sums_ + n * GH;
  T* const hidden_n = step.hidden_n != nullptr ? step.hidden_n + n * H : share + GH - H;
  return {gates + n * GH,
          share,
          bias_,
          step.h2h_bias + GH - H,
          At(step.c_0 != nullptr ? step.c_0 : step.c_prev, n * H),
          At(step.c, n * H),
          hidden_n,
          step.h_prev + n * H,
          step.h + n * H,
          step.y + n * step.y_stride,
          step.options.clip};
}

template <class T>
void ForwardWork<T>::RunUnits(const LayerDesc& desc, const ForwardStep<T>& step, int64_t n,
                              Units units) {
  const ForwardRow<T> row = RowOf(desc, step, n);
  if (!IsActive(step, n)) {
    std::fill(row.y + units.begin, row.y + units.end, T(0));
    Copy(row.h_prev, units, row.h);
    if (desc.has_c()) Copy(row.c_prev, units, row.c);
  } else {
    units_(row, units);
  }
  if (desc.has_c() && step.c_n != nullptr) Copy(row.c, units, step.c_n + n * desc.hidden);
}

// ---- backward -----------------------------------------------------------------------------------

template <class T>
BackwardBuffers<T>::BackwardBuffers(const LayerDesc& desc, const StepProducts<T>& products,
                                    Carver* carver)
    : products(products.Take(carver)) {
  const int64_t GH = desc.gate_rows();
  const int64_t rows = Walk(desc, 0, ChunkRows(desc)).chunk_steps * desc.batch;
  arrays.dgates_x = carver->Take<T>(rows * GH);
  const bool own = desc.cell().split_shares || desc.layer_norm;
  arrays.dgates_h = own ? carver->Take<T>(rows * GH) : arrays.dgates_x;
  arrays.dgates_first = carver->Take<T>(desc.batch * GH);
  arrays.copy_rows = std::min(rows, kInputCopyRows);
  arrays.input_copy = carver->Take<T>(arrays.copy_rows * desc.input);
  arrays.noise.Take(desc, carver);
  if (desc.layer_norm) {
    arrays.dshare_h = desc.cell().split_shares ? carver->Take<T>(rows * GH) : arrays.dgates_x;
    arrays.dc_gamma = desc.has_c() ? carver->Take<T>(rows * desc.hidden) : nullptr;
    arrays.dc_beta = desc.has_c() ? carver->Take<T>(rows * desc.hidden) : nullptr;
  }
  if (!desc.projected()) return;
  arrays.dh_total = carver->Take<T>(rows * desc.projection);
  arrays.dr = carver->Take<T>(desc.batch * desc.hidden);
  arrays.zeros = carver->Take<T>(desc.batch * desc.hidden);
}

template <class T>
void BackwardBuffers<T>::Begin(const LayerDesc& desc, const BackwardArrays& args,
                               int64_t direction) {
  const auto take = [](const T* from, int64_t values, T* to) {
    if (from != to) std::copy_n(from, values, to);
    return to;
  };
  arrays.dh = take(HiddenOf<const T>(desc, args.dhn, direction), desc.batch * desc.outputs(),
                   HiddenOf<T>(desc, args.dh0, direction));
  if (!desc.has_c()) return;
  arrays.dc = take(CellOf<const T>(desc, args.dcn, direction), desc.batch * desc.hidden,
                   CellOf<T>(desc, args.dc0, direction));
}

template <class T>
BackwardWork<T>::BackwardWork(const LayerDesc& desc, BlockProducts<T> products, const Key& key)
    : NoiseWork(key), products_(std::move(products)), units_(BackwardOf<T>(desc.mode)) {}

template <class T>
void BackwardWork<T>::Step(const LayerDesc& desc, const BackwardStep<T>& step,
                           const Parameters<const T>& weights) {
  if (desc.projected()) {
    Project(step);
    RunCells(desc, OfCells(step));
  } else if (desc.layer_norm) {
    RunNormalized(desc, step, weights);
  } else {
    RunCells(desc, step);
  }
  products_.h2h.Run(step.dgates_h, step.dh);
}

template <class T>
void BackwardWork<T>::Project(const BackwardStep<T>& step) {
  const int64_t P = step.outputs;
  ForUnits(step.rows, P, [&](int64_t n, Units units) {
    T* const dh_total = step.dh_total + n * P;
    const T* const dy = step.dy + n * step.y_stride;
    T* const dh = step.dh + n * P;
    const bool active = IsActive(step, n);
    for (int64_t j = units.begin; j < units.end; ++j) {
      dh_total[j] = active ? dy[j] + dh[j] : T(0);
      dh[j] = active ? T(0) : dh[j];
    }
  });
  products_.h2r->Run(step.dh_total, step.dr);
}

template <class T>
void BackwardWork<T>::RunCells(const LayerDesc& desc, const BackwardStep<T>& step) {
  ForUnits(step.rows, desc.hidden, [&](int64_t n, Units units) { RunUnits(desc, step, n, units); });
}

template <class T>
void BackwardWork<T>::RunUnits(const LayerDesc& desc, const BackwardStep<T>& step, int64_t n,
                               Units units) {
  const int64_t H = desc.hidden, GH = desc.gate_rows();
  const T* const c_prev = step.c_0 != nullptr ? step.c_0 : step.c_prev;
  const Presence present = PresenceOf(step, n);
  T* const dgates_x = step.dgates_x + n * GH;
  T* const dgates_h = step.dgates_h + n * GH;
  if (!present.active) {  // The gradients of the row's states do not change.
    ForGates(desc, [&](int64_t k) {
      std::fill(dgates_x + k + units.begin, dgates_x + k + units.end, T(0));
      std::fill(dgates_h + k + units.begin, dgates_h + k + units.end, T(0));
    });
    return;
  }
  const T* const h_prev = present.first ? step.h_0 + n * H : step.h_prev + n * step.y_stride;
  units_({At(step.gates, n * GH), At(step.hidden_n, n * H), h_prev, At(c_prev, n * H),
          At(step.c, n * H), step.y + n * step.y_stride, step.dy + n * step.y_stride,
          step.dh + n * H, At(step.dc, n * H), dgates_x, dgates_h},
         units);
  if (!present.first) return;
  T* const dgates_first = step.dgates_first + n * GH;
  ForGates(desc, [&](int64_t k) { Copy(dgates_h + k, units, dgates_first + k); });
}

template <class T>
void BackwardWork<T>::SumRows(const T* dgates, int64_t rows, int64_t columns, bool accumulate,
                              T* sums, T* copy) const {
  const auto sum = [&](int64_t, Units units) {
    cpu::SumRows(dgates, rows, columns, units.begin, units.end, accumulate, sums);
  };
  ForUnits(1, columns, sum, rows);
  if (copy != nullptr) std::copy_n(sums, columns, copy);
}

template struct ForwardBuffers<float>;
template struct ForwardBuffers<double>;
template class ForwardWork<float>;
template class ForwardWork<double>;
template struct BackwardBuffers<float>;
template struct BackwardBuffers<double>;
template class BackwardWork<float>;
template class BackwardWork<double>;

}  // namespace cpu
}  // namespace fastrnn
