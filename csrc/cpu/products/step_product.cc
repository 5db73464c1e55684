#include "step_product.h"

#include <algorithm>

#include "../threads.h"
#include "../vectors/number.h"

namespace fastrnn {
namespace cpu {
namespace {

// Packing costs about as much as two steps; below this many steps the weights are not packed. Nor
// are they for one row or two, whose product takes as long as reading the weights, packed or not.
constexpr int64_t kMinPackedSteps = 4;
constexpr int64_t kMaxUnpackedRows = 2;

// Where our own product is faster than oneDNN's, by the rows of a block: the most weights. It needs
// no call of a library; with a single row both only read weights.
constexpr int64_t kMaxSmallWeightsOfOneRow = 1 << 16;
constexpr int64_t kMaxSmallWeightsOf8Rows = 1 << 20;
constexpr int64_t kMaxSmallWeightsOf16Rows = 1 << 18;
constexpr int64_t kMaxSmallWork = 1 << 19;  // multiplications, for more rows
// oneDNN packs faster: the most weights that a sequence's steps pay for, for each step.
constexpr int64_t kMaxSmallWeightsOfStep = 1 << 14;
// With AVX-512 also where weights that do not fit into the first cache are read once for many rows,
// in sequences that pay for packing. On an Intel Xeon, a product with 2^20 weights takes 0.75 (8
// rows), 0.9 (16) and 0.92 (32) of oneDNN's time, and as long with more rows or fewer weights.
constexpr int64_t kMinTallRows = 8;
constexpr int64_t kMaxTallRows = 32;
constexpr int64_t kMinTallWeights = 1 << 18;
constexpr int64_t kMinTallSteps = 16;

int64_t MaxSmallWeights(int64_t rows) {
  if (rows == 1) return kMaxSmallWeightsOfOneRow;
  if (rows <= 8) return kMaxSmallWeightsOf8Rows;
  if (rows <= 16) return kMaxSmallWeightsOf16Rows;
  return kMaxSmallWork / rows;
}

bool IsSmall(int64_t rows, int64_t weights, int64_t steps) {
  return weights <= std::min(MaxSmallWeights(rows), steps * kMaxSmallWeightsOfStep);
}

bool IsTall(int64_t rows, int64_t weights, int64_t steps) {
  return rows >= kMinTallRows && rows <= kMaxTallRows && weights >= kMinTallWeights &&
         steps >= kMinTallSteps;
}

// Whether our own product of a packed float32 layer is the faster one.
bool IsFaster(int64_t rows, int64_t weights, int64_t steps) {
  switch (TileProduct::vector_bytes()) {
    case 64:
      return IsSmall(rows, weights, steps) || IsTall(rows, weights, steps);
    case 32:
      // oneDNN has no format of packed weights for AVX2 and packs them in every step. An LSTM of
      // 512 units with 32 rows infers in 59 ms instead of 90 (one thread of a Zen 3); with 128 rows
      // and up to 512 units both are equally fast.
      return rows > kMaxUnpackedRows || IsSmall(rows, weights, steps);
    default:
      return IsSmall(rows, weights, steps);
  }
}

// Threads take rows of their own if two have at least this many, if the weights, which each of them
// reads in every step, fit into a core's cache, and if the sequence has this many multiplications.
constexpr int64_t kMinRows = 4;
constexpr int64_t kMaxWeightsOfRows = 3 << 16;
constexpr int64_t kMinSequenceWork = 1 << 21;
// Multiplications that pay for a thread which meets the others in every step: on an AMD Zen 4, two
// parts of this size take a third less time than one thread (GRU of 256 units, one row).
constexpr int64_t kMinPartWork = 1 << 16;

static_assert(kPartMultiple % TileProduct::kColumnMultiple == 0, "parts begin at vectors");

}  // namespace

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

template <class T>
StepProduct<T>::StepProduct(const LayerDesc& desc, const Split& split, int64_t n, int64_t k,
                            Transpose transpose, bool accumulate)
    : dtype_(desc.dtype),
      blocks_(split.blocks),
      parts_(std::min(split.parts, (n + kPartMultiple - 1) / kPartMultiple)),
      batch_(desc.batch),
      n_(n),
      k_(k),
      transpose_(transpose),
      accumulate_(accumulate) {
  if constexpr (std::is_same<T, double>::value) {
    own_.emplace(n, k, transpose, accumulate);
    return;
  }
  if (desc.steps < kMinPackedSteps) return;
  const int64_t rows = (desc.batch + split.blocks - 1) / split.blocks;
  const bool rounds = sixteen_bits() && Multiplies(dtype_);  // oneDNN's product is faster
  if (rounds ? IsSmall(rows, n * k, desc.steps) : IsFaster(rows, n * k, desc.steps)) {
    own_.emplace(n, k, transpose, accumulate);
    return;
  }
  if (desc.batch <= kMaxUnpackedRows) return;
  const bool ragged = desc.batch % split.blocks != 0;
  const DType dtype = rounds ? dtype_ : DType::kFloat32;
  for (int64_t part = 0; part < parts_; ++part) {
    packed_.emplace_back(dtype, rows, ragged, Column(part + 1) - Column(part), k, transpose,
                         transpose == Transpose::kYes ? k : n, n, accumulate);
  }
}

template <class T>
std::string StepProduct<T>::Reason() const {
  const char* const product = own_              ? "fastrnn's own products"
                              : packed_.empty() ? "oneDNN's products, weights not packed"
                                                : "oneDNN's products, weights packed";
  const std::string type =
      converts() ? std::string(", ") + Name(dtype_) + " converted to float32" : "";
  const std::string sharing =
      blocks_ > 1  ? std::to_string(blocks_) + " threads with rows of their own"
      : parts_ > 1 ? "threads that share each step in " + std::to_string(parts_) + " parts"
                   : "one thread";
  return product + (type + ", " + sharing);
}

template <class T>
int64_t StepProduct<T>::Column(int64_t part) const {
  const int64_t multiples = (n_ + kPartMultiple - 1) / kPartMultiple;
  return std::min(n_, multiples * part / parts_ * kPartMultiple);
}

template <class T>
size_t StepProduct<T>::weight_stride() const {
  size_t bytes = 0;
  for (const PackedProduct& product : packed_) bytes = std::max(bytes, product.weight_bytes());
  return Carver::Round(bytes);
}

template <class T>
size_t StepProduct<T>::scratch_stride() const {
  size_t bytes = 0;
  for (const PackedProduct& product : packed_) bytes = std::max(bytes, product.scratch_bytes());
  return Carver::Round(bytes);
}

template <class T>
typename StepProduct<T>::Buffers StepProduct<T>::Take(Carver* carver) const {
  Buffers buffers;
  if (converts()) {
    buffers.converted = carver->Take<T>(n_ * k_);
  } else if (sixteen_bits()) {
    buffers.rounded = carver->Take<char>(batch_ * k_ * SizeOf(dtype_));
  }
  if (own_) {
    buffers.weights = carver->Take<char>(own_->weight_bytes());
  } else if (!packed_.empty()) {
    buffers.weights = carver->Take<char>(packed_.size() * weight_stride());
    const auto users = static_cast<size_t>(blocks_ * parts_);
    buffers.scratch = carver->Take<char>(users * scratch_stride());
  }
  return buffers;
}

template <class T>
void StepProduct<T>::Load(const void* weights, const Buffers& buffers) const {
  if constexpr (std::is_same<T, float>::value) {
    if (converts()) {
      Convert(dtype_, weights, n_ * k_, buffers.converted);
      weights = buffers.converted;
    }
  }
  if (own_) {
    return own_->Pack(static_cast<const T*>(weights), reinterpret_cast<T*>(buffers.weights));
  }
  const int64_t size = converts() ? sizeof(T) : SizeOf(dtype_);
  ParallelFor(static_cast<int64_t>(packed_.size()), [&](int64_t part) {
    const auto i = static_cast<size_t>(part);
    const int64_t column = Column(part);
    const int64_t offset = size * (transpose_ == Transpose::kYes ? column * k_ : column);
    packed_[i].Pack(static_cast<const char*>(weights) + offset,
                    buffers.weights + i * weight_stride(), buffers.scratch + i * scratch_stride());
  });
}

template <class T>
BlockProduct<T>::BlockProduct(const StepProduct<T>& product, const void* weights,
                              const typename StepProduct<T>::Buffers& buffers, int64_t block,
                              Rows rows)
    : product_(product), weights_(static_cast<const T*>(weights)), rows_(rows.count()) {
  if (product.converts()) weights_ = buffers.converted;
  if (product.own_) weights_ = reinterpret_cast<const T*>(buffers.weights);
  rounded_ = At(buffers.rounded, rows.begin * product.k_ * SizeOf(product.dtype_));
  for (size_t part = 0; part < product.packed_.size(); ++part) {
    const size_t user = static_cast<size_t>(block) * product.packed_.size() + part;
    packed_.emplace_back(product.packed_[part], rows_,
                         buffers.weights + part * product.weight_stride(),
                         buffers.scratch + user * product.scratch_stride());
  }
}

template <class T>
void BlockProduct<T>::Run(const T* source, T* destination) {
  const StepProduct<T>& p = product_;
  const void* factor = source;
  if constexpr (std::is_same<T, float>::value) {
    if (rounded_ != nullptr) {
      Convert(p.dtype_, source, rows_ * p.k_, rounded_);
      factor = rounded_;
    }
  }
  if (p.parts_ == 1) return RunPart(factor, 0, destination);
  ParallelFor(p.parts_, [&](int64_t part) { RunPart(factor, part, destination); });
}

template <class T>
void BlockProduct<T>::RunPart(const void* source, int64_t part, T* destination) {
  const StepProduct<T>& p = product_;
  const int64_t column = p.Column(part), end = p.Column(part + 1);
  if (!packed_.empty()) {
    return packed_[static_cast<size_t>(part)].Run(source, destination + column);
  }
  const auto* const values = static_cast<const T*>(source);
  if (p.own_) return p.own_->Run(rows_, values, weights_, destination, column, end);
  const bool transposed = p.transpose_ == Transpose::kYes;
  const int64_t stride = transposed ? p.k_ : p.n_;
  Gemm(rows_, end - column, p.k_, {values, p.k_},
       {weights_ + (transposed ? column * stride : column), stride, p.transpose_},
       p.accumulate_ ? 1.0f : 0.0f, {destination + column, p.n_});
}

template <class T>
typename StepProducts<T>::Buffers StepProducts<T>::Take(Carver* carver) const {
  const typename StepProduct<T>::Buffers of_h2h = h2h.Take(carver);
  return {of_h2h, h2r ? h2r->Take(carver) : typename StepProduct<T>::Buffers()};
}

template <class T>
void StepProducts<T>::Load(const Weights& weights, const Buffers& buffers) const {
  h2h.Load(weights.h2h_weight, buffers.h2h);
  if (h2r) h2r->Load(weights.h2r_weight, buffers.h2r);
}

template <class T>
BlockProducts<T>::BlockProducts(const StepProducts<T>& products, const Weights& weights,
                                const typename StepProducts<T>::Buffers& buffers, int64_t block,
                                Rows rows)
    : h2h(products.h2h, weights.h2h_weight, buffers.h2h, block, rows) {
  if (products.h2r) h2r.emplace(*products.h2r, weights.h2r_weight, buffers.h2r, block, rows);
}

template class StepProduct<float>;
template class StepProduct<double>;
template class BlockProduct<float>;
template class BlockProduct<double>;
template struct StepProducts<float>;
template struct StepProducts<double>;
template struct BlockProducts<float>;
template struct BlockProducts<double>;

}  // namespace cpu
}  // namespace fastrnn
