// The CPU backend: matrix products on oneDNN, cells vectorised in pointwise.cc.
//
// A direction is worked through in chunks of time. Per chunk, one product projects the inputs of
// all its steps; per step, one product with the recurrent weights and one pass over the cells.
// Backward mirrors this, and adds one product per chunk for dx and each weight gradient. The
// running states live in the output arrays (hn and cn, dh0 and dc0), so a step reads and writes
// dense [N, H] arrays in both directions. A row that rests goes through the products with the
// others and is left out of the cells.
#pragma once

#include <algorithm>
#include <optional>
#include <string>

#include "../error.h"
#include "../layout.h"
#include "../rnn.h"
#include "gemm.h"
#include "pointwise.h"
#include "threads.h"

namespace fastrnn {
namespace cpu {

// Rows of a chunk: enough that the products run at full rate and re-reading the weight gradients
// once a chunk does not show, few enough that a long sequence does not need a workspace as long.
constexpr int64_t kChunkRows = 2048;

// Packing costs about as much as two steps; below this many steps the weights are read as they are.
constexpr int64_t kMinPackedSteps = 4;

// Hidden units that one thread works on at a time, and the least total that more than one thread is
// woken for.
constexpr int64_t kUnitsPerTask = 512;
constexpr int64_t kMinParallelUnits = 4096;

inline void ExpectCovered(const LayerDesc& desc) {
  FASTRNN_EXPECTS(desc.dtype == DType::kFloat32,
                  std::string("dtype is ") + Name(desc.dtype) + ", expected float32 on the CPU");
}

// Which rows take part in which steps of one direction.
class RowSteps {
 public:
  RowSteps(const int32_t* lengths, const Walk& walk) : lengths_(lengths), walk_(walk) {}
  bool all() const { return lengths_ == nullptr; }
  bool TakesPart(int64_t row, int64_t time) const { return time <= LastTime(row); }
  bool IsFirst(int64_t row, int64_t time) const {
    return TakesPart(row, time) && time == (walk_.reverse ? LastTime(row) : 0);
  }

 private:
  int64_t LastTime(int64_t row) const {
    return (all() ? walk_.steps : std::min<int64_t>(lengths_[row], walk_.steps)) - 1;
  }

  const int32_t* lengths_;  // [N]
  Walk walk_;
};

// Calls body(row, Units) over all rows and hidden units; `work` is what a unit costs, in values.
// body must not throw.
template <class Body>
void ForUnits(int64_t rows, int64_t hidden, Body body, int64_t work = 1) {
  const int64_t blocks = (hidden + kUnitsPerTask - 1) / kUnitsPerTask;
  const bool parallel = rows * hidden * work >= kMinParallelUnits;
#pragma omp parallel for schedule(static) if (parallel)
  for (int64_t task = 0; task < rows * blocks; ++task) {
    const int64_t begin = task % blocks * kUnitsPerTask;
    body(task / blocks, Units{hidden, begin, std::min(begin + kUnitsPerTask, hidden)});
  }
}

inline bool Packed(const LayerDesc& desc) { return desc.steps >= kMinPackedSteps; }

// The product of a state or gate gradient [N, k] with the recurrent weights, packed or as they are.
class StepProduct {
 public:
  StepProduct(const LayerDesc& desc, int64_t n, int64_t k, Transpose transpose, bool accumulate)
      : m_(desc.batch), n_(n), k_(k), transpose_(transpose), accumulate_(accumulate) {
    if (Packed(desc)) packed_.emplace(m_, n, k, transpose, accumulate);
  }
  void Take(Carver* carver) {
    if (!packed_) return;
    buffer_ = carver->Take<char>(packed_->weight_bytes());
    scratch_ = carver->Take<char>(packed_->scratch_bytes());
  }
  void Load(const float* weights) {
    weights_ = weights;
    if (packed_) packed_->Pack(weights, buffer_, scratch_);
  }
  void Run(const float* source, float* destination) {
    if (packed_) return packed_->Run(source, destination);
    const int64_t stride = transpose_ == Transpose::kYes ? k_ : n_;
    Gemm(m_, n_, k_, {source, k_}, {weights_, stride, transpose_}, accumulate_ ? 1.0f : 0.0f,
         destination, n_);
  }

 private:
  int64_t m_, n_, k_;
  Transpose transpose_;
  bool accumulate_;
  std::optional<PackedProduct> packed_;
  char* buffer_ = nullptr;
  char* scratch_ = nullptr;
  const float* weights_ = nullptr;
};

}  // namespace cpu
}  // namespace fastrnn
