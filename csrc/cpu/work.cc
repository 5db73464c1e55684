#include "work.h"

#include <algorithm>

#include "threads.h"

namespace fastrnn {
namespace cpu {
namespace {

// Rows of a chunk: enough for products at full rate and to hide one pass over the weight gradients
// per chunk; few enough for a small workspace.
constexpr int64_t kChunkRows = 2048;

// Packing costs about as much as two steps; below this many steps the weights are not packed. Nor
// are they for one row or two, whose product takes as long as reading the weights, packed or not.
constexpr int64_t kMinPackedSteps = 4;
constexpr int64_t kMaxUnpackedRows = 2;

// Where our own product is faster than oneDNN's, by the rows of a block: the most weights. It needs
// no call of a library, and reads rows in fours; with more rows oneDNN reads the weights less
// often, and with a single row both only read weights.
constexpr int64_t kMaxSmallWeightsOfOneRow = 1 << 16;
constexpr int64_t kMaxSmallWeightsOf8Rows = 1 << 20;
constexpr int64_t kMaxSmallWeightsOf16Rows = 1 << 18;
constexpr int64_t kMaxSmallWork = 1 << 19;  // multiplications, for more rows
// oneDNN packs faster: the most weights that a sequence's steps pay for, for each step.
constexpr int64_t kMaxSmallWeightsOfStep = 1 << 14;

int64_t MaxSmallWeights(int64_t rows) {
  if (rows == 1) return kMaxSmallWeightsOfOneRow;
  if (rows <= 8) return kMaxSmallWeightsOf8Rows;
  if (rows <= 16) return kMaxSmallWeightsOf16Rows;
  return kMaxSmallWork / rows;
}

// Threads take rows of their own if two have at least this many, if the weights, which each of them
// reads in every step, fit into a core's cache, and if the sequence has this many multiplications.
constexpr int64_t kMinRows = 4;
constexpr int64_t kMaxWeightsOfRows = 3 << 16;
constexpr int64_t kMinSequenceWork = 1 << 21;
// Multiplications that pay for a thread which meets the others in every step: on an AMD Zen 4, two
// parts of this size take a third less time than one thread (GRU of 256 units, one row).
constexpr int64_t kMinPartWork = 1 << 16;

static_assert(kPartMultiple % SmallProduct::kColumnMultiple == 0, "parts begin at vectors");

// Hidden units of a row that are computed together, how many such pieces make a task, and the least
// work for more than one thread.
constexpr int64_t kPieceUnits = 512;
constexpr int64_t kTaskPieces = 8;
constexpr int64_t kMinParallelUnits = 4096;

// Rows of a copy of inputs, with zeros past a row's length.
constexpr int64_t kInputCopyRows = 256;

// Calls body(row, Units) over all rows and hidden units; `work` is the number of values per unit.
template <class Body>
void ForUnits(int64_t rows, int64_t hidden, Body body, int64_t work = 1) {
  const int64_t row_pieces = (hidden + kPieceUnits - 1) / kPieceUnits, pieces = rows * row_pieces;
  const auto run = [&](int64_t first, int64_t end) {
    for (int64_t piece = first; piece < end; ++piece) {
      const int64_t begin = piece % row_pieces * kPieceUnits;
      body(piece / row_pieces, Units{hidden, begin, std::min(begin + kPieceUnits, hidden)});
    }
  };
  if (rows * hidden * work < kMinParallelUnits) return run(0, pieces);
  const int64_t task_pieces = std::max<int64_t>(1, kTaskPieces / work);
  ParallelFor((pieces + task_pieces - 1) / task_pieces, [&](int64_t task) {
    run(task * task_pieces, std::min((task + 1) * task_pieces, pieces));
  });
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

// ---- how threads share the steps ----------------------------------------------------------------

Split Split::Of(const LayerDesc& desc) {
  const int64_t weights = desc.gate_rows() * desc.outputs() + desc.projection * desc.hidden;
  const int64_t step_work = desc.batch * weights;
  const int64_t blocks = std::min<int64_t>(desc.threads, desc.batch / kMinRows);
  const int64_t parts = std::min<int64_t>(desc.threads, step_work / kMinPartWork);
  if (blocks > 1 && weights <= kMaxWeightsOfRows && desc.steps * step_work >= kMinSequenceWork) {
    return {blocks, 1};
  }
  return {1, std::max<int64_t>(parts, 1)};
}

// ---- the step's product -------------------------------------------------------------------------

StepProduct::StepProduct(const LayerDesc& desc, const Split& split, int64_t n, int64_t k,
                         Transpose transpose, bool accumulate)
    : blocks_(split.blocks),
      parts_(std::min(split.parts, (n + kPartMultiple - 1) / kPartMultiple)),
      n_(n),
      k_(k),
      transpose_(transpose),
      accumulate_(accumulate) {
  if (desc.steps < kMinPackedSteps) return;
  const int64_t rows = (desc.batch + split.blocks - 1) / split.blocks;
  if (n * k <= std::min(MaxSmallWeights(rows), desc.steps * kMaxSmallWeightsOfStep)) {
    small_.emplace(n, k, transpose, accumulate);
    return;
  }
  if (desc.batch <= kMaxUnpackedRows) return;
  const bool ragged = desc.batch % split.blocks != 0;
  for (int64_t part = 0; part < parts_; ++part) {
    packed_.emplace_back(rows, ragged, Column(part + 1) - Column(part), k, transpose,
                         transpose == Transpose::kYes ? k : n, n, accumulate);
  }
}

std::string StepProduct::Reason() const {
  const char* const product = small_            ? "fastrnn's own products"
                              : packed_.empty() ? "oneDNN's products, weights not packed"
                                                : "oneDNN's products, weights packed";
  const std::string sharing =
      blocks_ > 1  ? std::to_string(blocks_) + " threads with rows of their own"
      : parts_ > 1 ? "threads that share each step in " + std::to_string(parts_) + " parts"
                   : "one thread";
  return product + (", " + sharing);
}

int64_t StepProduct::Column(int64_t part) const {
  const int64_t multiples = (n_ + kPartMultiple - 1) / kPartMultiple;
  return std::min(n_, multiples * part / parts_ * kPartMultiple);
}

size_t StepProduct::weight_stride() const {
  size_t bytes = 0;
  for (const PackedProduct& product : packed_) bytes = std::max(bytes, product.weight_bytes());
  return Carver::Round(bytes);
}

size_t StepProduct::scratch_stride() const {
  size_t bytes = 0;
  for (const PackedProduct& product : packed_) bytes = std::max(bytes, product.scratch_bytes());
  return Carver::Round(bytes);
}

StepProduct::Buffers StepProduct::Take(Carver* carver) const {
  if (small_) return {carver->Take<char>(small_->weight_bytes()), nullptr};
  if (packed_.empty()) return {};
  char* const weights = carver->Take<char>(packed_.size() * weight_stride());
  const auto users = static_cast<size_t>(blocks_ * parts_);
  return {weights, carver->Take<char>(users * scratch_stride())};
}

void StepProduct::Load(const float* weights, const Buffers& buffers) const {
  if (small_) return small_->Pack(weights, reinterpret_cast<float*>(buffers.weights));
  ParallelFor(static_cast<int64_t>(packed_.size()), [&](int64_t part) {
    const auto i = static_cast<size_t>(part);
    const int64_t column = Column(part);
    packed_[i].Pack(weights + (transpose_ == Transpose::kYes ? column * k_ : column),
                    buffers.weights + i * weight_stride(), buffers.scratch + i * scratch_stride());
  });
}

BlockProduct::BlockProduct(const StepProduct& product, const float* weights,
                           const StepProduct::Buffers& buffers, int64_t block, Rows rows)
    : product_(product), weights_(weights), rows_(rows.count()) {
  if (product.small_) weights_ = reinterpret_cast<const float*>(buffers.weights);
  for (size_t part = 0; part < product.packed_.size(); ++part) {
    const size_t user = static_cast<size_t>(block) * product.packed_.size() + part;
    packed_.emplace_back(product.packed_[part], rows_,
                         buffers.weights + part * product.weight_stride(),
                         buffers.scratch + user * product.scratch_stride());
  }
}

void BlockProduct::Run(const float* source, float* destination) {
  const StepProduct& p = product_;
  if (p.parts_ == 1) return RunPart(source, 0, destination);
  ParallelFor(p.parts_, [&](int64_t part) { RunPart(source, part, destination); });
}

void BlockProduct::RunPart(const float* source, int64_t part, float* destination) {
  const StepProduct& p = product_;
  const int64_t column = p.Column(part), end = p.Column(part + 1);
  if (p.small_) return p.small_->Run(rows_, source, weights_, destination, column, end);
  if (!packed_.empty()) {
    return packed_[static_cast<size_t>(part)].Run(source, destination + column);
  }
  const bool transposed = p.transpose_ == Transpose::kYes;
  const int64_t stride = transposed ? p.k_ : p.n_;
  Gemm(rows_, end - column, p.k_, {source, p.k_},
       {weights_ + (transposed ? column * stride : column), stride, p.transpose_},
       p.accumulate_ ? 1.0f : 0.0f, {destination + column, p.n_});
}

StepProducts::Buffers StepProducts::Take(Carver* carver) const {
  const StepProduct::Buffers of_h2h = h2h.Take(carver);
  return {of_h2h, h2r ? h2r->Take(carver) : StepProduct::Buffers()};
}

void StepProducts::Load(const Parameters<const float>& weights, const Buffers& buffers) const {
  h2h.Load(weights.h2h_weight, buffers.h2h);
  if (h2r) h2r->Load(weights.h2r_weight, buffers.h2r);
}

BlockProducts::BlockProducts(const StepProducts& products, const Parameters<const float>& weights,
                             const StepProducts::Buffers& buffers, int64_t block, Rows rows)
    : h2h(products.h2h, weights.h2h_weight, buffers.h2h, block, rows) {
  if (products.h2r) h2r.emplace(*products.h2r, weights.h2r_weight, buffers.h2r, block, rows);
}

// ---- forward ------------------------------------------------------------------------------------

ForwardBuffers::ForwardBuffers(const LayerDesc& desc, const StepProducts& products, Carver* carver)
    : products(products.Take(carver)) {
  sums = carver->Take<float>(desc.batch * SumsOfRow(desc));
  bias = carver->Take<float>(desc.gate_rows());
  const int64_t chunk_rows = Walk(desc, 0, kChunkRows).chunk_steps * desc.batch;
  gates = GatesInReserve(desc) ? nullptr : carver->Take<float>(chunk_rows * desc.gate_rows());
  const bool needs_r = desc.projected() && !desc.reserve;
  r = needs_r ? carver->Take<float>(desc.batch * desc.hidden) : nullptr;
}

void ForwardBuffers::SumBiases(const LayerDesc& desc,
                               const Parameters<const float>& weights) const {
  // If the last gate's shares are split, the sum excludes its h2h bias.
  const int64_t both = desc.gate_rows() - (desc.cell().split_shares ? desc.hidden : 0);
  for (int64_t j = 0; j < desc.gate_rows(); ++j) {
    bias[j] = weights.i2h_bias[j] + (j < both ? weights.h2h_bias[j] : 0.0f);
  }
}

ForwardWork::ForwardWork(const LayerDesc& desc, BlockProducts products,
                         const ForwardBuffers& buffers, Rows rows)
    : products_(std::move(products)),
      units_(ForwardOf<float>(desc)),
      sums_(buffers.sums + rows.begin * SumsOfRow(desc)),
      bias_(buffers.bias) {}

void ForwardWork::Step(const LayerDesc& desc, const ForwardStep<float>& step,
                       const Parameters<const float>&) {
  products_.h2h.Run(step.h_prev, sums_);
  RunCells(desc, OfCells(step));
  if (desc.projected()) Project(step);
}

void ForwardWork::Project(const ForwardStep<float>& step) {
  products_.h2r->Run(step.r, sums_);
  ForUnits(step.rows, step.outputs, [&](int64_t n, Units units) {
    float* const y = step.y + n * step.y_stride;
    float* const h = step.h + n * step.outputs;
    if (step.lengths != nullptr && step.time >= step.lengths[n]) {
      std::fill(y + units.begin, y + units.end, 0.0f);
      return Copy(step.h_prev + n * step.outputs, units, h);
    }
    Copy(sums_ + n * step.outputs, units, h);
    Copy(sums_ + n * step.outputs, units, y);
  });
}

void ForwardWork::RunCells(const LayerDesc& desc, const ForwardStep<float>& step) {
  const int64_t H = desc.hidden, GH = desc.gate_rows();
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
      float* const share = sums_ + n * GH;
      float* const hidden_n = step.hidden_n != nullptr ? step.hidden_n + n * H : share + GH - H;
      units_({gates + n * GH, share, bias_, step.h2h_bias + GH - H, row_c_prev, c, hidden_n,
              step.h_prev + n * H, step.h + n * H, y, step.options.clip},
             units);
    }
    if (desc.has_c() && step.c_n != nullptr) Copy(c, units, step.c_n + n * H);
  });
}

// ---- backward -----------------------------------------------------------------------------------

BackwardBuffers::BackwardBuffers(const LayerDesc& desc, const StepProducts& products,
                                 Carver* carver)
    : products(products.Take(carver)) {
  const int64_t GH = desc.gate_rows();
  const int64_t rows = Walk(desc, 0, kChunkRows).chunk_steps * desc.batch;
  arrays.dgates_x = carver->Take<float>(rows * GH);
  arrays.dgates_h = desc.cell().split_shares ? carver->Take<float>(rows * GH) : arrays.dgates_x;
  arrays.dgates_first = carver->Take<float>(desc.batch * GH);
  arrays.copy_rows = std::min(rows, kInputCopyRows);
  arrays.input_copy = carver->Take<float>(arrays.copy_rows * desc.input);
  if (!desc.projected()) return;
  arrays.dh_total = carver->Take<float>(rows * desc.projection);
  arrays.dr = carver->Take<float>(desc.batch * desc.hidden);
  arrays.zeros = carver->Take<float>(desc.batch * desc.hidden);
}

BackwardWork::BackwardWork(const LayerDesc& desc, BlockProducts products)
    : products_(std::move(products)), units_(BackwardOf<float>(desc.mode)) {}

void BackwardWork::Step(const LayerDesc& desc, const BackwardStep<float>& step,
                        const Parameters<const float>&) {
  if (desc.projected()) Project(step);
  RunCells(desc, OfCells(step));
  products_.h2h.Run(step.dgates_h, step.dh);
}

void BackwardWork::Project(const BackwardStep<float>& step) {
  const int64_t P = step.outputs;
  ForUnits(step.rows, P, [&](int64_t n, Units units) {
    float* const dh_total = step.dh_total + n * P;
    const float* const dy = step.dy + n * step.y_stride;
    float* const dh = step.dh + n * P;
    const bool active = step.lengths == nullptr || step.time < step.lengths[n];
    for (int64_t j = units.begin; j < units.end; ++j) {
      dh_total[j] = active ? dy[j] + dh[j] : 0.0f;
      dh[j] = active ? 0.0f : dh[j];
    }
  });
  products_.h2r->Run(step.dh_total, step.dr);
}

void BackwardWork::RunCells(const LayerDesc& desc, const BackwardStep<float>& step) {
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
