// The walk through time of one direction, forward and backward, for every backend.
//
// The walk goes in chunks of time. For each chunk, one product projects the inputs of all its
// steps; backward mirrors this, with one product per chunk for dx and for each weight gradient. A
// backend supplies the products and the steps, as a `Work` class:
//
//   Gemm(m, n, k, a, b, beta, c)      c[m, n] = a[m, k] * b[k, n] + beta * c; a and b are Factor<T>
//   Step(desc, step, weights)         one step, with its products with the direction's weights
// and for backward
//   CopyRows(x, first_row, rows, columns, lengths, batch, to)   zeros past a row's length
//   SumRows(dgates, rows, columns, accumulate, sums, copy)      copy: a second result, or null
//   Round(from, values, to)           floats to the layer's type
//   SetZero(array, values)
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "backend.h"
#include "layout.h"
#include "step.h"

namespace fastrnn {

// A factor of a product, as stored: row-major, with rows `stride` values apart.
template <class T>
struct Factor {
  const T* data;
  int64_t stride;
  Transpose transpose = Transpose::kNo;
};

// The result of a product, stored likewise.
template <class T>
struct Result {
  T* data;
  int64_t stride;
};

// Rows of the batch, [begin, end). They are independent of one another in every step.
struct Rows {
  int64_t begin, end;
  int64_t count() const { return end - begin; }
};

// ---- forward ------------------------------------------------------------------------------------

// The arrays of one direction in the workspace.
struct ForwardArraysOfDirection {
  float* input_sum;  // [chunk rows, G*H], unless it is in the gates of the reserve (float32)
  float* c;          // [N, H], unless it is in the reserve
  void* r;           // [N, H] of the layer's type, if it is projected and r not in the reserve
};

template <class T, class Work>
class ForwardDirection {
 public:
  ForwardDirection(const LayerDesc& desc, const ForwardArgs& args, int64_t chunk_rows,
                   ForwardArraysOfDirection arrays, Work* work, int64_t direction)
      : desc_(desc),
        arrays_(arrays),
        work_(*work),
        lengths_(args.lengths),
        weights_(args.weights[direction]),
        walk_(desc, direction, chunk_rows),
        reserve_(desc, args.reserve, direction),
        x_(static_cast<const T*>(args.x)),
        h0_(HiddenOf<const T>(desc, args.h0, direction)),
        c0_(CellOf<const T>(desc, args.c0, direction)),
        y_(static_cast<T*>(args.y) + direction * desc.outputs()),
        hn_(HiddenOf<T>(desc, args.hn, direction)),
        cn_(CellOf<T>(desc, args.cn, direction)) {}

  const Walk& walk() const { return walk_; }
  const Parameters<const T>& weights() const { return weights_; }

  // The input's share of the chunk whose first step this is: [chunk rows, G*H], in order of time.
  const float* Project(int64_t first) const {
    const int64_t N = desc_.batch, I = desc_.input, GH = desc_.gate_rows();
    const int64_t end = walk_.End(first), begin_time = walk_.Begin(first, end);
    float* sums = arrays_.input_sum;
    if constexpr (std::is_same<T, float>::value) {
      if (reserve_.gates != nullptr) sums = reserve_.gates + begin_time * N * GH;
    }
    work_.Gemm((end - first) * N, GH, I, Factor<T>{x_ + begin_time * N * I, I},
               Factor<T>{weights_.i2h_weight, I, Transpose::kYes}, 0.0f, Result<float>{sums, GH});
    return sums;
  }

  // Runs a step of a projected chunk for the rows of the batch from first_row on. The steps before
  // it have been run.
  void RunStep(int64_t index, int64_t first, const float* input_sums, int64_t first_row = 0) const {
    RunStep(index, first, input_sums, {first_row, desc_.batch}, &work_);
  }
  void RunStep(int64_t index, int64_t first, const float* input_sums, Rows rows, Work* work) const {
    work->Step(desc_, OfRows(rows, StepOf(index, first, input_sums)), weights_);
  }

  // A step of the chunk whose first step is `first`, without its hidden_sum.
  ForwardStep<T> StepOf(int64_t index, int64_t first, const float* input_sums) const {
    const int64_t N = desc_.batch, H = desc_.hidden, GH = desc_.gate_rows();
    const int64_t time = walk_.Time(index);
    ForwardStep<T> step = {};
    step.rows = static_cast<int>(N);
    step.hidden = static_cast<int>(H);
    step.outputs = static_cast<int>(desc_.outputs());
    step.options = {desc_.cell().relu, desc_.clip};
    step.time = time;
    step.lengths = lengths_;
    step.i2h_bias = weights_.i2h_bias;
    step.h2h_bias = weights_.h2h_bias;
    step.input_sum = input_sums + (time - walk_.Begin(first, walk_.End(first))) * N * GH;
    step.h_prev = index == 0 ? h0_ : hn_;
    step.c_0 = index == 0 ? c0_ : nullptr;
    step.c_prev = index == 0 ? nullptr : C(walk_.Time(index - 1));
    step.gates = At(reserve_.gates, time * N * GH);
    step.hidden_n = At(reserve_.hidden_n, time * N * H);
    step.h = hn_;  // running
    step.c = C(time);
    step.c_n = index == walk_.steps - 1 ? cn_ : nullptr;
    step.y_stride = desc_.directions * desc_.outputs();
    step.y = y_ + time * N * step.y_stride;
    if (desc_.projected()) {
      step.r = reserve_.r != nullptr ? reserve_.r + time * N * H : static_cast<T*>(arrays_.r);
    }
    return step;
  }

 private:
  // The step for these rows alone.
  ForwardStep<T> OfRows(Rows rows, ForwardStep<T> step) const {
    const int64_t units = rows.begin * desc_.hidden, gates = rows.begin * desc_.gate_rows();
    const int64_t outputs = rows.begin * desc_.outputs();
    step.rows = static_cast<int>(rows.count());
    step.lengths = At(step.lengths, rows.begin);
    step.input_sum += gates;
    step.h_prev = At(step.h_prev, outputs);
    step.c_0 = At(step.c_0, units);
    step.c_prev = At(step.c_prev, units);
    step.gates = At(step.gates, gates);
    step.hidden_n = At(step.hidden_n, units);
    step.h += outputs;
    step.c = At(step.c, units);
    step.c_n = At(step.c_n, units);
    step.y += rows.begin * step.y_stride;
    step.r = At(step.r, units);
    return step;
  }

  float* C(int64_t time) const {
    return reserve_.c != nullptr ? reserve_.c + time * desc_.batch * desc_.hidden : arrays_.c;
  }

  const LayerDesc& desc_;
  ForwardArraysOfDirection arrays_;
  Work& work_;
  const int32_t* lengths_;
  Parameters<const T> weights_;
  Walk walk_;
  Reserve<T> reserve_;
  const T* x_;
  const T* h0_;
  const T* c0_;
  T* y_;  // the direction's first column
  T* hn_;
  T* cn_;
};

// Runs one direction, or several on streams of their own, step by step in turn.
template <class T, class Work>
void RunSteps(const std::vector<ForwardDirection<T, Work>>& directions) {
  const Walk& walk = directions[0].walk();
  for (int64_t first = 0; first < walk.steps; first = walk.End(first)) {
    const float* sums[kMaxDirections];
    for (size_t d = 0; d < directions.size(); ++d) sums[d] = directions[d].Project(first);
    for (int64_t index = first; index < walk.End(first); ++index) {
      for (size_t d = 0; d < directions.size(); ++d) directions[d].RunStep(index, first, sums[d]);
    }
  }
}

// ---- backward -----------------------------------------------------------------------------------

// The arrays of one direction in the workspace.
template <class T>
struct BackwardArraysOfDirection {
  int64_t copy_rows;
  T* dgates_x;      // [chunk rows, G*H]
  T* dgates_h;      // [chunk rows, G*H]; the same array unless the cell splits its shares
  T* dgates_first;  // [N, G*H]
  T* input_copy;    // [copy_rows, I]: inputs, with zeros past a row's length
  float* dh;        // [N, P], running
  float* dc;        // [N, H], running
  // If the layer is projected.
  T* dh_total;  // [chunk rows, P]
  float* dr;    // [N, H]
  T* zeros;     // [N, H]
  // Sums of the gradients; float32 layers sum in the gradients themselves.
  Parameters<float> sums = Parameters<float>(WeightGradients{});
};

template <class T, class Work>
class BackwardDirection {
 public:
  // The second direction adds to the dx of the first.
  BackwardDirection(const LayerDesc& desc, const BackwardArgs& args, int64_t chunk_rows,
                    const BackwardArraysOfDirection<T>& arrays, Work* work, int64_t direction)
      : desc_(desc),
        arrays_(arrays),
        work_(*work),
        lengths_(args.lengths),
        weights_(args.weights[direction]),
        gradients_(args.gradients[direction]),
        sums_(arrays.sums),
        walk_(desc, direction, chunk_rows),
        reserve_(desc, args.reserve, direction),
        add_to_dx_(direction > 0),
        y_stride_(desc.directions * desc.outputs()),
        x_(static_cast<const T*>(args.x)),
        dx_(static_cast<T*>(args.dx)),
        y_(static_cast<const T*>(args.y) + direction * desc.outputs()),
        dy_(static_cast<const T*>(args.dy) + direction * desc.outputs()),
        h0_(HiddenOf<const T>(desc, args.h0, direction)),
        c0_(CellOf<const T>(desc, args.c0, direction)),
        dhn_(HiddenOf<const T>(desc, args.dhn, direction)),
        dcn_(CellOf<const T>(desc, args.dcn, direction)),
        dh0_(HiddenOf<T>(desc, args.dh0, direction)),
        dc0_(CellOf<T>(desc, args.dc0, direction)) {
    if constexpr (std::is_same<T, float>::value) sums_ = gradients_;
  }

  const Walk& walk() const { return walk_; }
  const Parameters<const T>& weights() const { return weights_; }

  // Called before the first chunk, which holds the last steps and may be shorter, as in forward.
  void Begin() const {
    // Rows of length 0 have no first step.
    if (lengths_ != nullptr) work_.SetZero(arrays_.dgates_first, desc_.batch * desc_.gate_rows());
    if (desc_.projected()) work_.SetZero(arrays_.zeros, desc_.batch * desc_.hidden);
  }

  // Runs a step of a chunk for the rows of the batch from first_row on. Later steps have been run.
  void RunStep(int64_t index, int64_t first, int64_t first_row = 0) const {
    RunStep(index, first, {first_row, desc_.batch}, &work_);
  }
  void RunStep(int64_t index, int64_t first, Rows rows, Work* work) const {
    work->Step(desc_, OfRows(rows, StepOf(index, first)), weights_);
  }

  // Computes a chunk's gradients of the inputs and weights, after its steps.
  void SumChunk(int64_t first) {
    const int64_t GH = desc_.gate_rows(), I = desc_.input, N = desc_.batch;
    const int64_t end = walk_.End(first), begin_time = walk_.Begin(first, end);
    work_.Gemm((end - first) * N, I, GH, Factor<T>{arrays_.dgates_x, GH},
               Factor<T>{weights_.i2h_weight, I}, add_to_dx_ ? 1.0f : 0.0f,
               Result<T>{dx_ + begin_time * N * I, I});
    InputWeightGradient(begin_time, end - first);
    RecurrentGradients(first, end);
    if (desc_.projected()) ProjectionGradient(begin_time, (end - first) * N);
    BiasGradients((end - first) * N, end < walk_.steps);
  }

  // Called after the last chunk, which holds the first steps.
  void End() {
    const int64_t N = desc_.batch, P = desc_.outputs();
    AddGates(&h2h_started_, N, P, arrays_.dgates_first, {h0_, P}, sums_.h2h_weight);
    work_.Round(arrays_.dh, N * P, dh0_);
    RoundGradients();
  }

  // A step of the chunk whose first step is `first`.
  BackwardStep<T> StepOf(int64_t index, int64_t first) const {
    const int64_t N = desc_.batch, H = desc_.hidden, GH = desc_.gate_rows();
    const int64_t time = walk_.Time(index);
    const int64_t row = (time - walk_.Begin(first, walk_.End(first))) * N;  // of the chunk
    const bool initial = index == 0, last = index == walk_.steps - 1;
    const int64_t previous = initial ? time : walk_.Time(index - 1);
    BackwardStep<T> step = {};
    step.rows = static_cast<int>(N);
    step.hidden = static_cast<int>(H);
    step.outputs = static_cast<int>(desc_.outputs());
    step.relu = desc_.cell().relu;
    step.time = time;
    step.steps = walk_.steps;
    step.reverse = walk_.reverse;
    step.lengths = lengths_;
    step.gates = At(reserve_.gates, time * N * GH);
    step.hidden_n = At(reserve_.hidden_n, time * N * H);
    step.h_0 = h0_;
    step.h_prev = Y(previous);
    step.c_0 = initial ? c0_ : nullptr;
    step.c_prev = At(reserve_.c, previous * N * H);
    step.c = At(reserve_.c, time * N * H);
    step.y = Y(time);
    step.dy = dy_ + time * N * y_stride_;
    step.y_stride = y_stride_;
    step.dh_n = last ? dhn_ : nullptr;
    step.dc_n = last ? dcn_ : nullptr;
    step.dh = arrays_.dh;
    step.dh_wanted = desc_.cell().split_shares || lengths_ != nullptr;
    step.dc = arrays_.dc;
    step.dc_0 = initial ? dc0_ : nullptr;
    step.dgates_x = arrays_.dgates_x + row * GH;
    step.dgates_h = arrays_.dgates_h + row * GH;
    step.dgates_first = arrays_.dgates_first;
    if (desc_.projected()) {
      step.r = reserve_.r + time * N * H;
      step.dh_total = arrays_.dh_total + row * desc_.outputs();
      step.dr = arrays_.dr;
      step.zeros = arrays_.zeros;
    }
    return step;
  }

 private:
  // The step for these rows alone.
  BackwardStep<T> OfRows(Rows rows, BackwardStep<T> step) const {
    const int64_t units = rows.begin * desc_.hidden, gates = rows.begin * desc_.gate_rows();
    const int64_t outputs = rows.begin * desc_.outputs(), strided = rows.begin * step.y_stride;
    step.rows = static_cast<int>(rows.count());
    step.lengths = At(step.lengths, rows.begin);
    step.gates = At(step.gates, gates);
    step.hidden_n = At(step.hidden_n, units);
    step.h_0 = At(step.h_0, outputs);
    step.h_prev += strided;
    step.c_0 = At(step.c_0, units);
    step.c_prev = At(step.c_prev, units);
    step.c = At(step.c, units);
    step.y += strided;
    step.dy += strided;
    step.dh_n = At(step.dh_n, outputs);
    step.dc_n = At(step.dc_n, units);
    step.dh += outputs;
    step.dc = At(step.dc, units);
    step.dc_0 = At(step.dc_0, units);
    step.dgates_x += gates;
    step.dgates_h += gates;
    step.dgates_first += gates;
    step.r = At(step.r, units);
    step.dh_total = At(step.dh_total, outputs);
    step.dr = At(step.dr, units);
    step.zeros = At(step.zeros, units);
    return step;
  }

  const T* Y(int64_t time) const { return y_ + time * desc_.batch * y_stride_; }

  void InputWeightGradient(int64_t begin_time, int64_t steps) {
    const int64_t GH = desc_.gate_rows(), I = desc_.input, N = desc_.batch, rows = steps * N;
    if (lengths_ == nullptr) {
      return AddGates(&i2h_started_, rows, I, arrays_.dgates_x, {x_ + begin_time * N * I, I},
                      sums_.i2h_weight);
    }
    // Zero gradients past a row's length are not enough: the inputs there may be NaN.
    for (int64_t row = 0; row < rows; row += arrays_.copy_rows) {
      const int64_t count = std::min(arrays_.copy_rows, rows - row);
      work_.CopyRows(x_, begin_time * N + row, count, I, lengths_, N, arrays_.input_copy);
      AddGates(&i2h_started_, count, I, arrays_.dgates_x + row * GH, {arrays_.input_copy, I},
               sums_.i2h_weight);
    }
  }

  // The recurrent weights were multiplied by the previous step's output and, in a row's first step,
  // by its initial state, which End() adds. In the reverse direction, y is zero before a row's
  // first step.
  void RecurrentGradients(int64_t first, int64_t end) {
    const int64_t GH = desc_.gate_rows(), N = desc_.batch;
    const int64_t later = std::max<int64_t>(first, 1);
    if (later == end) return;
    const int64_t skipped = walk_.Begin(later, end) - walk_.Begin(first, end);
    AddGates(&h2h_started_, (end - later) * N, desc_.outputs(), arrays_.dgates_h + skipped * N * GH,
             {Y(walk_.Begin(later - 1, end - 1)), y_stride_}, sums_.h2h_weight);
  }

  void ProjectionGradient(int64_t begin_time, int64_t rows) {
    const int64_t H = desc_.hidden, P = desc_.outputs();
    AddWeights(&h2r_started_, rows, P, H, arrays_.dh_total,
               {reserve_.r + begin_time * desc_.batch * H, H}, sums_.h2r_weight);
  }

  // sum[G*H, columns] += dgates[rows, G*H]' * seen[rows, columns]; = if the sum has not started.
  void AddGates(bool* started, int64_t rows, int64_t columns, const T* dgates, Factor<T> seen,
                float* sum) {
    AddWeights(started, rows, desc_.gate_rows(), columns, dgates, seen, sum);
  }
  // The same for gradients of another width.
  void AddWeights(bool* started, int64_t rows, int64_t width, int64_t columns, const T* gradients,
                  Factor<T> seen, float* sum) {
    work_.Gemm(width, columns, rows, Factor<T>{gradients, width, Transpose::kYes}, seen,
               *started ? 1.0f : 0.0f, Result<float>{sum, columns});
    *started = true;
  }

  // accumulate: the sums hold those of other chunks.
  void BiasGradients(int64_t rows, bool accumulate) {
    const int64_t GH = desc_.gate_rows();
    if (desc_.cell().split_shares) {
      work_.SumRows(arrays_.dgates_x, rows, GH, accumulate, sums_.i2h_bias, nullptr);
      work_.SumRows(arrays_.dgates_h, rows, GH, accumulate, sums_.h2h_bias, nullptr);
    } else {
      work_.SumRows(arrays_.dgates_x, rows, GH, accumulate, sums_.i2h_bias, sums_.h2h_bias);
    }
  }

  void RoundGradients() {
    if (std::is_same<T, float>::value) return;
    const int64_t GH = desc_.gate_rows();
    work_.Round(sums_.i2h_weight, GH * desc_.input, gradients_.i2h_weight);
    work_.Round(sums_.h2h_weight, GH * desc_.outputs(), gradients_.h2h_weight);
    work_.Round(sums_.i2h_bias, GH, gradients_.i2h_bias);
    work_.Round(sums_.h2h_bias, GH, gradients_.h2h_bias);
    if (!desc_.projected()) return;
    work_.Round(sums_.h2r_weight, desc_.outputs() * desc_.hidden, gradients_.h2r_weight);
  }

  const LayerDesc& desc_;
  const BackwardArraysOfDirection<T>& arrays_;
  Work& work_;
  const int32_t* lengths_;
  Parameters<const T> weights_;
  Parameters<T> gradients_;
  Parameters<float> sums_;
  // Whether the sums hold a product.
  bool i2h_started_ = false, h2h_started_ = false, h2r_started_ = false;
  Walk walk_;
  Reserve<const T> reserve_;
  bool add_to_dx_;  // whether the other direction has written dx
  int64_t y_stride_;
  const T* x_;
  T* dx_;
  const T* y_;  // the direction's first column, as for dy_
  const T* dy_;
  const T* h0_;
  const T* c0_;
  const T* dhn_;
  const T* dcn_;
  T* dh0_;
  T* dc0_;
};

// Runs one direction. run_chunk(direction, first) runs the steps of a chunk.
template <class T, class Work, class RunChunk>
void RunChunks(BackwardDirection<T, Work> direction, RunChunk run_chunk) {
  const Walk& walk = direction.walk();
  direction.Begin();
  for (int64_t first = walk.LastChunk(); first >= 0; first -= walk.chunk_steps) {
    run_chunk(direction, first);
    direction.SumChunk(first);
  }
  direction.End();
}

template <class T, class Work>
void RunSteps(const BackwardDirection<T, Work>& direction) {
  RunChunks(direction, [](const BackwardDirection<T, Work>& of, int64_t first) {
    for (int64_t index = of.walk().End(first) - 1; index >= first; --index) {
      of.RunStep(index, first);
    }
  });
}

}  // namespace fastrnn
