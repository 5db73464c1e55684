#include "work.h"

#include <algorithm>

namespace fastrnn {
namespace cpu {
namespace {

// Rows of a chunk: enough for products at full rate and to hide one pass over the weight gradients
// per chunk; few enough for a small workspace.
constexpr int64_t kChunkRows = 2048;

// Packing costs about as much as two steps; below this many steps the weights are not packed.
constexpr int64_t kMinPackedSteps = 4;

// The most multiplications of a step for the small product: a few microseconds of one thread, which
// is where a second one begins to pay. The number of threads does not matter, so that it does not
// change the results.
constexpr int64_t kMaxSmallWork = 1 << 17;
// oneDNN packs faster: the most weights that a sequence's steps pay for, for each step.
constexpr int64_t kMaxSmallWeights = 1 << 14;

bool IsSmall(const LayerDesc& desc) {
  const int64_t weights = desc.gate_rows() * desc.hidden;
  return desc.batch * weights <= kMaxSmallWork && weights <= desc.steps * kMaxSmallWeights;
}

// Hidden units of a thread's task, and the least total for more than one thread.
constexpr int64_t kUnitsPerTask = 512;
constexpr int64_t kMinParallelUnits = 4096;

// Rows of a copy of inputs, with zeros past a row's length.
constexpr int64_t kInputCopyRows = 256;

// Calls body(row, Units) over all rows and hidden units; `work` is the number of values per unit.
// body must not throw.
template <class Body>
void ForUnits(int64_t rows, int64_t hidden, Body body, int64_t work = 1) {
  const int64_t blocks = (hidden + kUnitsPerTask - 1) / kUnitsPerTask;
  const bool parallel = rows * hidden * work >= kMinParallelUnits;
  const auto run = [&](int64_t task) {
    const int64_t begin = task % blocks * kUnitsPerTask;
    body(task / blocks, Units{hidden, begin, std::min(begin + kUnitsPerTask, hidden)});
  };
  if (!parallel) {  // OpenMP's if clause would start a team of one.
    for (int64_t task = 0; task < rows * blocks; ++task) run(task);
    return;
  }
#pragma omp parallel for schedule(static)
  for (int64_t task = 0; task < rows * blocks; ++task) run(task);
}

// Copies the units of one state.
void Copy(const float* from, Units units, float* to) {
  if (from != to) std::copy(from + units.begin, from + units.end, to + units.begin);
}

// Calls body(k * H) for each gate.
template <class Body>
void ForGates(const LayerDesc& desc, Body body) {
  for (int64_t k = 0; k < desc.gate_rows(); k += desc.hidden) body(k);
}

}  // namespace

int64_t ChunkRows() { return kChunkRows; }

// ---- the step's product -------------------------------------------------------------------------

StepProduct::StepProduct(const LayerDesc& desc, int64_t n, int64_t k, Transpose transpose,
                         bool accumulate)
    : m_(desc.batch), n_(n), k_(k), transpose_(transpose), accumulate_(accumulate) {
  if (desc.steps < kMinPackedSteps) return;
  if (IsSmall(desc)) {
    small_.emplace(n, k, transpose, accumulate);
  } else {
    packed_.emplace(m_, n, k, transpose, accumulate);
  }
}

std::string StepProduct::Reason() const {
  if (small_) return "products of our own, since a step has little work";
  return packed_ ? "oneDNN's products, weights packed" : "oneDNN's products, too few steps to pack";
}

StepProduct::Buffers StepProduct::Take(Carver* carver) const {
  if (small_) return {carver->Take<char>(small_->weight_bytes()), nullptr};
  if (!packed_) return {};
  char* const weights = carver->Take<char>(packed_->weight_bytes());
  return {weights, carver->Take<char>(packed_->scratch_bytes())};
}

LoadedProduct::LoadedProduct(const StepProduct& product, const float* weights,
                             StepProduct::Buffers buffers)
    : product_(product), weights_(weights) {
  if (product.small_) {
    auto* const packed = reinterpret_cast<float*>(buffers.weights);
    product.small_->Pack(weights, packed);
    weights_ = packed;
  } else if (product.packed_) {
    packed_.emplace(*product.packed_, weights, buffers.weights, buffers.scratch);
  }
}

void LoadedProduct::Run(const float* source, float* destination) {
  const StepProduct& p = product_;
  if (p.small_) return p.small_->Run(p.m_, source, weights_, destination);
  if (packed_) return packed_->Run(source, destination);
  const int64_t stride = p.transpose_ == Transpose::kYes ? p.k_ : p.n_;
  Gemm(p.m_, p.n_, p.k_, {source, p.k_}, {weights_, stride, p.transpose_},
       p.accumulate_ ? 1.0f : 0.0f, {destination, p.n_});
}

// ---- forward ------------------------------------------------------------------------------------

ForwardBuffers::ForwardBuffers(const LayerDesc& desc, const StepProduct& h2h, Carver* carver)
    : product(h2h.Take(carver)) {
  share = carver->Take<float>(desc.batch * desc.gate_rows());
  bias = carver->Take<float>(desc.gate_rows());
  const int64_t chunk_rows = Walk(desc, 0, kChunkRows).chunk_steps * desc.batch;
  gates = GatesInReserve(desc) ? nullptr : carver->Take<float>(chunk_rows * desc.gate_rows());
}

ForwardWork::ForwardWork(const LayerDesc& desc, const StepProduct& h2h,
                         const Parameters<const float>& weights, const ForwardBuffers& buffers)
    : h2h_(h2h, weights.h2h_weight, buffers.product),
      units_(ForwardOf(desc.mode)),
      share_(buffers.share),
      bias_(buffers.bias) {
  // If the last gate's shares are split, the sum excludes its h2h bias.
  const int64_t both = desc.gate_rows() - (desc.cell().split_shares ? desc.hidden : 0);
  for (int64_t j = 0; j < desc.gate_rows(); ++j) {
    buffers.bias[j] = weights.i2h_bias[j] + (j < both ? weights.h2h_bias[j] : 0.0f);
  }
}

void ForwardWork::Step(const LayerDesc& desc, const ForwardStep<float>& step, const float*) {
  const int64_t H = desc.hidden, GH = desc.gate_rows();
  h2h_.Run(step.h_prev, share_);
  // Without a reserve the activated gates, which nothing reads, overwrite their own chunk's sums.
  float* const gates = step.gates != nullptr ? step.gates : const_cast<float*>(step.input_sum);
  const float* const c_prev = step.c_0 != nullptr ? step.c_0 : step.c_prev;
  ForUnits(step.rows, H, [&](int64_t n, Units units) {
    float* const y = step.y + n * step.y_stride;
    const float* const row_c_prev = At(c_prev, n * H);
    float* const c = At(step.c, n * H);
    if (step.lengths != nullptr && step.time >= step.lengths[n]) {
      std::fill(y + units.begin, y + units.end, 0.0f);
      Copy(step.h_prev + n * H, units, step.h + n * H);
      if (desc.has_c()) Copy(row_c_prev, units, c);
    } else {
      float* const share = share_ + n * GH;
      float* const hidden_n = step.hidden_n != nullptr ? step.hidden_n + n * H : share + GH - H;
      units_({gates + n * GH, share, bias_, step.h2h_bias + GH - H, row_c_prev, c, hidden_n,
              step.h_prev + n * H, step.h + n * H, y},
             units);
    }
    if (desc.has_c() && step.c_n != nullptr) Copy(c, units, step.c_n + n * H);
  });
}

// ---- backward -----------------------------------------------------------------------------------

BackwardBuffers::BackwardBuffers(const LayerDesc& desc, const StepProduct& h2h, Carver* carver)
    : product(h2h.Take(carver)) {
  const int64_t GH = desc.gate_rows();
  const int64_t rows = Walk(desc, 0, kChunkRows).chunk_steps * desc.batch;
  arrays.dgates_x = carver->Take<float>(rows * GH);
  arrays.dgates_h = desc.cell().split_shares ? carver->Take<float>(rows * GH) : arrays.dgates_x;
  arrays.dgates_first = carver->Take<float>(desc.batch * GH);
  arrays.copy_rows = std::min(rows, kInputCopyRows);
  arrays.input_copy = carver->Take<float>(arrays.copy_rows * desc.input);
}

BackwardWork::BackwardWork(const LayerDesc& desc, const StepProduct& h2h, const float* h2h_weight,
                           const BackwardBuffers& buffers)
    : h2h_(h2h, h2h_weight, buffers.product), units_(BackwardOf(desc.mode)) {}

void BackwardWork::Step(const LayerDesc& desc, const BackwardStep<float>& step, const float*) {
  const int64_t H = desc.hidden, GH = desc.gate_rows();
  const float* const c_prev = step.c_0 != nullptr ? step.c_0 : step.c_prev;
  ForUnits(step.rows, H, [&](int64_t n, Units units) {
    const int64_t length = step.lengths == nullptr ? step.steps : step.lengths[n];
    const int64_t last_time = std::min(length, step.steps) - 1;
    float* const dgates_x = step.dgates_x + n * GH;
    float* const dgates_h = step.dgates_h + n * GH;
    if (step.time > last_time) {  // The gradients of the row's states do not change.
      ForGates(desc, [&](int64_t k) {
        std::fill(dgates_x + k + units.begin, dgates_x + k + units.end, 0.0f);
        std::fill(dgates_h + k + units.begin, dgates_h + k + units.end, 0.0f);
      });
      return;
    }
    const bool first = step.time == (step.reverse ? last_time : 0);
    const float* const h_prev = first ? step.h_0 + n * H : step.h_prev + n * step.y_stride;
    units_({At(step.gates, n * GH), At(step.hidden_n, n * H), h_prev, At(c_prev, n * H),
            At(step.c, n * H), step.y + n * step.y_stride, step.dy + n * step.y_stride,
            step.dh + n * H, At(step.dc, n * H), dgates_x, dgates_h},
           units);
    if (!first) return;
    float* const dgates_first = step.dgates_first + n * GH;
    ForGates(desc, [&](int64_t k) { Copy(dgates_h + k, units, dgates_first + k); });
  });
  h2h_.Run(step.dgates_h, step.dh);
}

void BackwardWork::CopyRows(const float* x, int64_t first_row, int64_t rows, int64_t columns,
                            const int32_t* lengths, int64_t batch, float* to) const {
  for (int64_t row = first_row; row < first_row + rows; ++row, to += columns) {
    if (row / batch < lengths[row % batch]) {
      std::copy_n(x + row * columns, columns, to);
    } else {
      std::fill_n(to, columns, 0.0f);
    }
  }
}

void BackwardWork::SumRows(const float* dgates, int64_t rows, int64_t columns, bool accumulate,
                           float* sums, float* copy) const {
  const auto sum = [&](int64_t, Units units) {
    cpu::SumRows(dgates, rows, columns, units.begin, units.end, accumulate, sums);
  };
  ForUnits(1, columns, sum, rows);
  if (copy != nullptr) std::copy_n(sums, columns, copy);
}

void BackwardWork::Round(const float* from, int64_t values, float* to) const {
  if (from != to) std::copy_n(from, values, to);
}

}  // namespace cpu
}  // namespace fastrnn
