// The backward walk through time of one direction (pass.h).
#pragma once

#include <algorithm>
#include <cstdint>

#include "backend.h"
#include "layout.h"
#include "noise_step.h"
#include "pass.h"
#include "step.h"

namespace fastrnn {

// The arrays of one direction in the workspace.
template <class T>
struct BackwardArraysOfDirection {
  int64_t copy_rows;
  T* dgates_x;         // [chunk rows, G*H]
  T* dgates_h;         // [chunk rows, G*H]; the same array unless the cell splits its shares
  T* dgates_first;     // [N, G*H]
  T* input_copy;       // [copy_rows, I]: inputs, with zeros past a row's length
  Accumulator<T>* dh;  // [N, P], running
  Accumulator<T>* dc;  // [N, H], running
  // If the layer is projected.
  T* dh_total;         // [chunk rows, P]
  Accumulator<T>* dr;  // [N, H]
  T* zeros;            // [N, H]
  BackwardNoiseArrays<T> noise = {};
  // If the layer is normalised; then dgates_h is an array of its own.
  T* dshare_h;  // [chunk rows, G*H]; dgates_x, unless the cell splits its shares
  T* dc_gamma;  // [chunk rows, H], as dc_beta
  T* dc_beta;
  // Sums of the gradients, unless the gradients themselves hold them (kHoldsSums).
  Parameters<Accumulator<T>> sums = Parameters<Accumulator<T>>(WeightGradients{});
};

template <class T, class Work>
class BackwardDirection {
 public:
  using Sum = Accumulator<T>;

  // The second direction adds to the dx of the first.
  BackwardDirection(const LayerDesc& desc, const BackwardArrays& args, int64_t chunk_rows,
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
        noise_reserve_(desc, args.reserve, direction),
        masks_(desc.noise, args.first_layer, direction),
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
    if constexpr (kHoldsSums<T>) sums_ = gradients_;
  }

  const Walk& walk() const { return walk_; }
  const Parameters<const T>& weights() const { return weights_; }

  // Called before the first chunk, which holds the last steps and may be shorter, as in forward.
  void Begin() const {
    // Rows of length 0 have no first step.
    if (lengths_ != nullptr) work_.SetZero(arrays_.dgates_first, desc_.batch * desc_.gate_rows());
    if (desc_.projected()) work_.SetZero(arrays_.zeros, desc_.batch * desc_.hidden);
    if (desc_.noise.any()) work_.SetZero(arrays_.noise.zeros, desc_.batch * desc_.outputs());
  }

  // Runs a step of a chunk for the rows of the batch from first_row on. Later steps have been run.
  void RunStep(int64_t index, int64_t first, int64_t first_row = 0) const {
    RunStep(index, first, {first_row, desc_.batch}, &work_);
  }
  void RunStep(int64_t index, int64_t first, Rows rows, Work* work) const {
    BackwardStep<T> step = StepOf(index, first);
    SelectRows(rows, &step);
    if (!desc_.noise.any()) return work->Step(desc_, step, weights_);
    const BackwardNoise<T> noise = NoiseOf(index).OfRows(rows.begin, step.hidden, step.outputs);
    work->BeginNoise(step, noise);
    work->Step(desc_, WithoutNoise(step, noise), weights_);
    work->EndNoise(step, noise);
  }

  // Computes a chunk's gradients of the inputs and weights, after its steps.
  void SumChunk(int64_t first) {
    const int64_t GH = desc_.gate_rows(), I = desc_.input, N = desc_.batch;
    const int64_t end = walk_.End(first), begin_time = walk_.Begin(first, end);
    if (desc_.layer_norm) NormGradients(begin_time * N, (end - first) * N, end < walk_.steps);
    work_.Gemm((end - first) * N, I, GH, Factor<T>{arrays_.dgates_x, GH},
               Factor<T>{weights_.i2h_weight, I}, add_to_dx_ ? 1.0f : 0.0f,
               Result<T>{dx_ + begin_time * N * I, I});
    InputWeightGradient(begin_time, end - first);
    RecurrentGradients(first, end);
    if (desc_.projected()) ProjectionGradient(begin_time, (end - first) * N);
    if (!desc_.layer_norm) BiasGradients((end - first) * N, end < walk_.steps);
  }

  // Called after the last chunk, which holds the first steps.
  void End() {
    const int64_t N = desc_.batch, P = desc_.outputs();
    if (!KeepsRead(desc_)) {
      AddGates(&h2h_started_, N, P, arrays_.dgates_first, {h0_, P}, sums_.h2h_weight);
    }
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
    if (desc_.layer_norm) {
      step.normalized_hidden = reserve_.normalized_hidden + time * N * GH;
      step.hidden_rstd = reserve_.hidden_rstd + time * N * NormParts(desc_);
      step.c_moments = At(reserve_.c_moments, time * N * 2);
      step.dshare_h = arrays_.dshare_h + row * GH;
      step.dc_gamma = At(arrays_.dc_gamma, row * H);
      step.dc_beta = At(arrays_.dc_beta, row * H);
    }
    return step;
  }

 private:
  // Leaves only these rows in a step. (In place: a copy would wait for the fields to be written.)
  void SelectRows(Rows rows, BackwardStep<T>* of_all) const {
    BackwardStep<T>& step = *of_all;
    step.rows = static_cast<int>(rows.count());
    if (rows.begin == 0) return;
    const int64_t units = rows.begin * desc_.hidden, gates = rows.begin * desc_.gate_rows();
    const int64_t outputs = rows.begin * desc_.outputs(), strided = rows.begin * step.y_stride;
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
    step.normalized_hidden = At(step.normalized_hidden, gates);
    step.hidden_rstd = At(step.hidden_rstd, rows.begin * NormParts(desc_));
    step.c_moments = At(step.c_moments, rows.begin * 2);
    step.dshare_h = At(step.dshare_h, gates);
    step.dc_gamma = At(step.dc_gamma, units);
    step.dc_beta = At(step.dc_beta, units);
  }

  BackwardNoise<T> NoiseOf(int64_t index) const {
    const int64_t time = walk_.Time(index);
    const int64_t units = time * desc_.batch * desc_.hidden;
    const int64_t values = time * desc_.batch * desc_.outputs();
    const BackwardNoiseArrays<T>& own = arrays_.noise;
    return {masks_,
            index == walk_.steps - 1,
            0,
            static_cast<Sum*>(own.read_mask),
            At(noise_reserve_.read, values),
            At(noise_reserve_.h, units),
            At(noise_reserve_.c, units),
            own.dh_new,
            own.dc_kept,
            own.zeros};
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
  // first step. Layers with noise may keep what was read in all steps.
  void RecurrentGradients(int64_t first, int64_t end) {
    const int64_t GH = desc_.gate_rows(), N = desc_.batch;
    if (KeepsRead(desc_)) {
      const int64_t P = desc_.outputs(), values = walk_.Begin(first, end) * N * P;
      return AddGates(&h2h_started_, (end - first) * N, P, arrays_.dgates_h,
                      {noise_reserve_.read + values, P}, sums_.h2h_weight);
    }
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
                Sum* sum) {
    AddWeights(started, rows, desc_.gate_rows(), columns, dgates, seen, sum);
  }
  // The same for gradients of another width.
  void AddWeights(bool* started, int64_t rows, int64_t width, int64_t columns, const T* gradients,
                  Factor<T> seen, Sum* sum) {
    work_.Gemm(width, columns, rows, Factor<T>{gradients, width, Transpose::kYes}, seen,
               *started ? 1.0f : 0.0f, Result<Sum>{sum, columns});
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

  // `row` is the chunk's first one.
  void NormGradients(int64_t row, int64_t rows, bool accumulate) {
    const int64_t GH = desc_.gate_rows();
    work_.NormGradients(
        desc_,
        NormChunk<T>{rows, accumulate, arrays_.dgates_x, arrays_.dshare_h,
                     reserve_.normalized_input + row * GH, reserve_.normalized_hidden + row * GH,
                     reserve_.input_rstd + row * NormParts(desc_), arrays_.dc_gamma,
                     arrays_.dc_beta, weights_.i2h_gamma, sums_});
  }

  void RoundGradients() {
    if (kHoldsSums<T>) return;
    const int64_t GH = desc_.gate_rows();
    work_.Round(sums_.i2h_weight, GH * desc_.input, gradients_.i2h_weight);
    work_.Round(sums_.h2h_weight, GH * desc_.outputs(), gradients_.h2h_weight);
    work_.Round(sums_.i2h_bias, GH, gradients_.i2h_bias);
    work_.Round(sums_.h2h_bias, GH, gradients_.h2h_bias);
    if (desc_.layer_norm) {
      work_.Round(sums_.i2h_gamma, GH, gradients_.i2h_gamma);
      work_.Round(sums_.h2h_gamma, GH, gradients_.h2h_gamma);
    }
    if (desc_.layer_norm && desc_.has_c()) {
      work_.Round(sums_.c_gamma, desc_.hidden, gradients_.c_gamma);
      work_.Round(sums_.c_beta, desc_.hidden, gradients_.c_beta);
    }
    if (!desc_.projected()) return;
    work_.Round(sums_.h2r_weight, desc_.outputs() * desc_.hidden, gradients_.h2r_weight);
  }

  const LayerDesc& desc_;
  const BackwardArraysOfDirection<T>& arrays_;
  Work& work_;
  const int32_t* lengths_;
  Parameters<const T> weights_;
  Parameters<T> gradients_;
  Parameters<Sum> sums_;
  // Whether the sums hold a product.
  bool i2h_started_ = false, h2h_started_ = false, h2r_started_ = false;
  Walk walk_;
  Reserve<const T> reserve_;
  NoiseReserve<const T> noise_reserve_;
  Masks<Sum> masks_;
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
