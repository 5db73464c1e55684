#include "rounded_work.h"

#include "threads.h"

namespace fastrnn {
namespace cpu {
namespace {

// A new field of a step must be copied here.
static_assert(sizeof(ForwardStep<float>) == 208 && sizeof(BackwardStep<float>) == 280,
              "is a field of a step missing?");

// Columns of a sum over rows that are converted together.
constexpr int64_t kSumColumns = 512;
// Rows of a chunk that pass the normalisation together: they stay in the cache.
constexpr int64_t kNormRows = 64;

// Converts rows that are `stride` apart to or from rows without gaps.
template <class T>
void ToFloat(const T* from, int64_t stride, int64_t rows, int64_t columns, float* to) {
  for (int64_t row = 0; row < rows; ++row) {
    Convert(from + row * stride, columns, to + row * columns);
  }
}
template <class T>
void FromFloat(const float* from, int64_t rows, int64_t columns, T* to, int64_t stride) {
  for (int64_t row = 0; row < rows; ++row) {
    Convert(from + row * columns, columns, to + row * stride);
  }
}

// What both passes' steps have in common.
template <class Step, class Rounded>
Step Like(const Rounded& step) {
  Step in_float = {};
  in_float.rows = step.rows;
  in_float.hidden = step.hidden;
  in_float.outputs = step.outputs;
  in_float.time = step.time;
  in_float.lengths = step.lengths;
  in_float.y_stride = step.outputs;
  return in_float;
}

}  // namespace

// ---- scales and shifts --------------------------------------------------------------------------

void FloatGammas::Take(const LayerDesc& desc, Carver* carver) {
  if (!desc.layer_norm) return;
  i2h = carver->Take<float>(desc.gate_rows());
  h2h = carver->Take<float>(desc.gate_rows());
  c = desc.has_c() ? carver->Take<float>(desc.hidden) : nullptr;
  c_beta = desc.has_c() ? carver->Take<float>(desc.hidden) : nullptr;
}

template <class T>
void FloatGammas::Load(const LayerDesc& desc, const Parameters<const T>& weights) const {
  if (!desc.layer_norm) return;
  Convert(weights.i2h_gamma, desc.gate_rows(), i2h);
  Convert(weights.h2h_gamma, desc.gate_rows(), h2h);
  if (!desc.has_c()) return;
  Convert(weights.c_gamma, desc.hidden, c);
  Convert(weights.c_beta, desc.hidden, c_beta);
}

Parameters<const float> FloatGammas::parameters() const {
  Weights weights = {};
  weights.i2h_gamma = i2h;
  weights.h2h_gamma = h2h;
  weights.c_gamma = c;
  weights.c_beta = c_beta;
  return Parameters<const float>(weights);
}

// ---- forward ------------------------------------------------------------------------------------

template <class T>
RoundedForwardBuffers<T>::RoundedForwardBuffers(const LayerDesc& desc,
                                                const StepProducts<float>& products, Carver* carver)
    : ForwardBuffers<float>(desc, products, carver) {
  const int64_t states = desc.batch * desc.hidden, outputs = desc.batch * desc.outputs();
  c = desc.has_c() && !desc.reserve ? carver->Take<float>(states) : nullptr;
  h = carver->Take<float>(outputs);
  y = carver->Take<float>(outputs);
  hidden_n = desc.cell().split_shares ? carver->Take<float>(states) : nullptr;
  r = desc.projected() ? carver->Take<float>(states) : nullptr;
  rounded_r = desc.projected() && !desc.reserve ? carver->Take<T>(states) : nullptr;
  i2h_bias = carver->Take<float>(desc.gate_rows());
  h2h_bias = carver->Take<float>(desc.gate_rows());
  gammas.Take(desc, carver);
  const bool keeps_norms = desc.layer_norm && desc.reserve;
  const int64_t gate_values = desc.batch * desc.gate_rows();
  normalized_input = keeps_norms ? carver->Take<float>(gate_values) : nullptr;
  normalized_hidden = keeps_norms ? carver->Take<float>(gate_values) : nullptr;
}

template <class T>
void RoundedForwardBuffers<T>::SumBiases(const LayerDesc& desc,
                                         const Parameters<const T>& weights) const {
  Convert(weights.i2h_bias, desc.gate_rows(), i2h_bias);
  Convert(weights.h2h_bias, desc.gate_rows(), h2h_bias);
  ForwardBuffers<float>::SumBiases(
      desc, Parameters<const float>(Weights{nullptr, nullptr, i2h_bias, h2h_bias}));
  gammas.Load(desc, weights);
}

template <class T>
void RoundedForwardWork<T>::Step(const LayerDesc& desc, const ForwardStep<T>& step,
                                 const Parameters<const T>&) {
  const int64_t N = step.rows, H = step.hidden, P = step.outputs, GH = desc.gate_rows();
  auto in_float = Like<ForwardStep<float>>(step);
  in_float.options = step.options;
  in_float.h2h_bias = buffers_.h2h_bias;
  in_float.input_sum = step.input_sum;  // the activated gates overwrite it
  in_float.h_prev = in_float.h = buffers_.h + first_row_ * P;
  in_float.c_prev = step.c_0 != nullptr ? step.c : step.c_prev;
  in_float.c = step.c;
  in_float.hidden_n = At(step.hidden_n == nullptr ? nullptr : buffers_.hidden_n, first_row_ * H);
  in_float.y = buffers_.y + first_row_ * P;
  in_float.r = At(buffers_.r, first_row_ * H);
  in_float.normalized_input = At(buffers_.normalized_input, first_row_ * GH);
  in_float.normalized_hidden = At(buffers_.normalized_hidden, first_row_ * GH);
  in_float.input_rstd = step.input_rstd;
  in_float.hidden_rstd = step.hidden_rstd;
  in_float.c_moments = step.c_moments;
  Convert(step.h_prev, N * P, in_float.h);
  if (step.c_0 != nullptr) Convert(step.c_0, N * H, step.c);

  work_.Step(desc, in_float, buffers_.gammas.parameters());

  Convert(in_float.h, N * P, step.h);
  FromFloat(in_float.y, N, P, step.y, step.y_stride);
  if (step.gates != nullptr) Convert(step.input_sum, N * GH, step.gates);
  if (step.hidden_n != nullptr) Convert(in_float.hidden_n, N * H, step.hidden_n);
  if (step.r != nullptr) Convert(in_float.r, N * H, step.r);
  if (step.c_n != nullptr) Convert(step.c, N * H, step.c_n);
  if (step.normalized_input == nullptr) return;
  Convert(in_float.normalized_input, N * GH, step.normalized_input);
  Convert(in_float.normalized_hidden, N * GH, step.normalized_hidden);
}

// ---- backward -----------------------------------------------------------------------------------

template <class T>
RoundedBackwardBuffers<T>::RoundedBackwardBuffers(const LayerDesc& desc,
                                                  const StepProducts<float>& products,
                                                  Carver* carver)
    : products(products.Take(carver)) {
  const int64_t H = desc.hidden, P = desc.outputs(), GH = desc.gate_rows(), N = desc.batch;
  const int64_t rows = Walk(desc, 0, ChunkRows(desc)).chunk_steps * N;
  const bool split = desc.cell().split_shares;
  // Of the arrays that the gradients of the normalisation use, too.
  const int64_t norm_rows = desc.layer_norm ? std::max(N, std::min(rows, kNormRows)) : N;
  const auto take = [&](int64_t values) { return carver->Take<float>(values); };
  arrays.dgates_x = carver->Take<T>(rows * GH);
  const bool own = split || desc.layer_norm;
  arrays.dgates_h = own ? carver->Take<T>(rows * GH) : arrays.dgates_x;
  arrays.dgates_first = carver->Take<T>(N * GH);
  arrays.copy_rows = std::min(rows, kInputCopyRows);
  arrays.input_copy = carver->Take<T>(arrays.copy_rows * desc.input);
  arrays.dh = take(N * P);
  arrays.dc = desc.has_c() ? take(N * H) : nullptr;
  if (desc.projected()) {
    arrays.dh_total = carver->Take<T>(rows * P);
    arrays.dr = take(N * H);
    arrays.zeros = carver->Take<T>(N * H);
    arrays.sums.h2r_weight = take(P * H);
  }
  arrays.noise.Take(desc, carver);
  arrays.sums.i2h_weight = take(GH * desc.input);
  arrays.sums.h2h_weight = take(GH * P);
  arrays.sums.i2h_bias = take(GH);
  arrays.sums.h2h_bias = take(GH);
  gates = desc.cell().keeps_gates ? take(N * GH) : nullptr;
  hidden_n = split ? take(N * H) : nullptr;
  h_0 = take(N * P);
  h_prev = take(N * P);
  c_0 = desc.has_c() ? take(N * H) : nullptr;
  y = take(N * P);
  dy = take(N * P);
  dgates_x = take(norm_rows * GH);
  dgates_h = own ? take(N * GH) : dgates_x;
  dgates_first = take(N * GH);
  dh_total = desc.projected() ? take(N * P) : nullptr;
  zeros = desc.projected() ? take(N * H) : nullptr;
  if (!desc.layer_norm) return;
  gammas.Take(desc, carver);
  arrays.dshare_h = split ? carver->Take<T>(rows * GH) : arrays.dgates_x;
  arrays.sums.i2h_gamma = take(GH);
  arrays.sums.h2h_gamma = take(GH);
  normalized_input = take(norm_rows * GH);
  normalized_hidden = take(norm_rows * GH);
  dshare_h = split ? take(norm_rows * GH) : dgates_x;
  if (!desc.has_c()) return;
  arrays.dc_gamma = carver->Take<T>(rows * H);
  arrays.dc_beta = carver->Take<T>(rows * H);
  arrays.sums.c_gamma = take(H);
  arrays.sums.c_beta = take(H);
  dc_gamma = take(norm_rows * H);
  dc_beta = take(norm_rows * H);
}

template <class T>
void RoundedBackwardBuffers<T>::Begin(const LayerDesc& desc, const BackwardArrays& args,
                                      int64_t direction) {
  const int64_t N = desc.batch;
  Convert(HiddenOf<const T>(desc, args.dhn, direction), N * desc.outputs(), arrays.dh);
  if (desc.has_c()) {
    Convert(CellOf<const T>(desc, args.dcn, direction), N * desc.hidden, arrays.dc);
  }
  gammas.Load(desc, Parameters<const T>(args.weights[direction]));
  std::fill_n(dgates_first, N * desc.gate_rows(), 0.0f);
  if (zeros != nullptr) std::fill_n(zeros, N * desc.hidden, 0.0f);
}

template <class T>
RoundedBackwardWork<T>::RoundedBackwardWork(const LayerDesc& desc, BlockProducts<float> products,
                                            const RoundedBackwardBuffers<T>& buffers, Rows rows,
                                            const Key& key)
    : NoiseWork(key),
      work_(desc, std::move(products), key),
      buffers_(buffers),
      first_row_(rows.begin) {}

// The step with copies of what it reads.
template <class T>
BackwardStep<float> RoundedBackwardWork<T>::InFloat(const LayerDesc& desc,
                                                    const BackwardStep<T>& step) const {
  const int64_t N = step.rows, H = step.hidden, P = step.outputs, GH = desc.gate_rows();
  const int64_t units = first_row_ * H, outputs = first_row_ * P, gates = first_row_ * GH;
  auto in_float = Like<BackwardStep<float>>(step);
  in_float.relu = step.relu;
  in_float.steps = step.steps;
  in_float.reverse = step.reverse;
  const auto copy = [](const T* from, int64_t stride, int64_t rows, int64_t columns, float* to) {
    ToFloat(from, stride, rows, columns, to);
    return to;
  };
  if (step.gates != nullptr) {
    in_float.gates = copy(step.gates, GH, N, GH, buffers_.gates + gates);
  }
  in_float.h_0 = buffers_.h_0 + outputs;
  in_float.h_prev = buffers_.h_prev + outputs;
  in_float.y = buffers_.y + outputs;
  if (desc.cell().split_shares) {
    in_float.hidden_n = copy(step.hidden_n, H, N, H, buffers_.hidden_n + units);
    copy(step.h_0, P, N, P, buffers_.h_0 + outputs);
    copy(step.h_prev, step.y_stride, N, P, buffers_.h_prev + outputs);
  }
  if (!desc.cell().keeps_gates) copy(step.y, step.y_stride, N, P, buffers_.y + outputs);
  if (step.c_0 != nullptr) in_float.c_0 = copy(step.c_0, H, N, H, buffers_.c_0 + units);
  in_float.c_prev = step.c_prev;
  in_float.c = step.c;
  in_float.dy = copy(step.dy, step.y_stride, N, P, buffers_.dy + outputs);
  in_float.dh = step.dh;
  in_float.dh_wanted = step.dh_wanted;
  in_float.dc = step.dc;
  in_float.dgates_x = buffers_.dgates_x + gates;
  in_float.dgates_h = buffers_.dgates_h + gates;
  in_float.dgates_first = buffers_.dgates_first + gates;
  if (desc.projected()) {
    in_float.r = in_float.zeros = buffers_.zeros + units;  // an LSTM's cells do not read r
    in_float.dh_total = buffers_.dh_total + outputs;
    in_float.dr = step.dr;
  }
  if (desc.layer_norm) {
    in_float.normalized_hidden =
        copy(step.normalized_hidden, GH, N, GH, buffers_.normalized_hidden + gates);
    in_float.hidden_rstd = step.hidden_rstd;
    in_float.c_moments = step.c_moments;
    in_float.dshare_h = buffers_.dshare_h + gates;
    in_float.dc_gamma = At(buffers_.dc_gamma, units);
    in_float.dc_beta = At(buffers_.dc_beta, units);
  }
  return in_float;
}

template <class T>
void RoundedBackwardWork<T>::Step(const LayerDesc& desc, const BackwardStep<T>& step,
                                  const Parameters<const T>&) {
  const int64_t N = step.rows, P = step.outputs, GH = desc.gate_rows();
  const BackwardStep<float> in_float = InFloat(desc, step);
  work_.Step(desc, in_float, buffers_.gammas.parameters());
  Convert(in_float.dgates_x, N * GH, step.dgates_x);
  if (step.dgates_h != step.dgates_x) Convert(in_float.dgates_h, N * GH, step.dgates_h);
  if (desc.layer_norm) {
    if (step.dshare_h != step.dgates_x) Convert(in_float.dshare_h, N * GH, step.dshare_h);
    if (step.dc_gamma != nullptr) {
      Convert(in_float.dc_gamma, N * step.hidden, step.dc_gamma);
      Convert(in_float.dc_beta, N * step.hidden, step.dc_beta);
    }
  }
  if (step.lengths != nullptr || step.time == (step.reverse ? step.steps - 1 : 0)) {
    Convert(in_float.dgates_first, N * GH, step.dgates_first);
  }
  if (desc.projected()) Convert(in_float.dh_total, N * P, step.dh_total);
  if (step.dc_0 != nullptr) Convert(step.dc, N * step.hidden, step.dc_0);
}

template <class T>
void RoundedBackwardWork<T>::SumRows(const T* dgates, int64_t rows, int64_t columns,
                                     bool accumulate, float* sums, float* copy) const {
  ParallelFor((columns + kSumColumns - 1) / kSumColumns, [&](int64_t piece) {
    const int64_t begin = piece * kSumColumns, count = std::min(kSumColumns, columns - begin);
    float row_in_float[kSumColumns];
    for (int64_t row = 0; row < rows; ++row) {
      Convert(dgates + row * columns + begin, count, row_in_float);
      cpu::SumRows(row_in_float, 1, count, 0, count, accumulate || row > 0, sums + begin);
    }
  });
  if (copy != nullptr) std::copy_n(sums, columns, copy);
}

// The buffers of the steps, of which none runs now, have the copies of some rows at a time.
template <class T>
void RoundedBackwardWork<T>::NormGradients(const LayerDesc& desc, const NormChunk<T>& chunk) const {
  const int64_t GH = desc.gate_rows(), H = desc.hidden, parts = NormParts(desc);
  const RoundedBackwardBuffers<T>& copies = buffers_;
  for (int64_t row = 0; row < chunk.rows; row += kNormRows) {
    const int64_t rows = std::min(kNormRows, chunk.rows - row), gates = row * GH;
    Convert(chunk.dgates_x + gates, rows * GH, copies.dgates_x);
    Convert(chunk.normalized_input + gates, rows * GH, copies.normalized_input);
    Convert(chunk.normalized_hidden + gates, rows * GH, copies.normalized_hidden);
    if (desc.cell().split_shares) {
      Convert(chunk.dshare_h + gates, rows * GH, copies.dshare_h);
    }
    if (desc.has_c()) {
      Convert(chunk.dc_gamma + row * H, rows * H, copies.dc_gamma);
      Convert(chunk.dc_beta + row * H, rows * H, copies.dc_beta);
    }
    work_.NormGradients(
        desc, {rows, chunk.accumulate || row > 0, copies.dgates_x, copies.dshare_h,
               copies.normalized_input, copies.normalized_hidden, chunk.input_rstd + row * parts,
               copies.dc_gamma, copies.dc_beta, copies.gammas.i2h, chunk.sums});
    Convert(copies.dgates_x, rows * GH, chunk.dgates_x + gates);
  }
}

#define FASTRNN_INSTANCES(T)                 \
  template struct RoundedForwardBuffers<T>;  \
  template class RoundedForwardWork<T>;      \
  template struct RoundedBackwardBuffers<T>; \
  template class RoundedBackwardWork<T>;
FASTRNN_INSTANCES(Half)
FASTRNN_INSTANCES(Bfloat16)

}  // namespace cpu
}  // namespace fastrnn
