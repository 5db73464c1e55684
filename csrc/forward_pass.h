// The forward walk through time of one direction (pass.h).
#pragma once

#include <cstdint>
#include <vector>

#include "backend.h"
#include "layout.h"
#include "noise_step.h"
#include "pass.h"
#include "step.h"

namespace fastrnn {

// The arrays of one direction in the workspace.
template <class Sum>
struct ForwardArraysOfDirection {
  Sum* input_sum;  // [chunk rows, G*H], unless it is in the gates of the reserve (kHoldsSums)
  Sum* c;          // [N, H], unless it is in the reserve
  void* r;         // [N, H] of the layer's type, if it is projected and r not in the reserve
  ForwardNoiseArrays noise = {};
};

template <class T, class Work>
class ForwardDirection {
 public:
  using Sum = Accumulator<T>;

  ForwardDirection(const LayerDesc& desc, const ForwardArrays& args, int64_t chunk_rows,
                   ForwardArraysOfDirection<Sum> arrays, Work* work, int64_t direction)
      : desc_(desc),
        arrays_(arrays),
        work_(*work),
        lengths_(args.lengths),
        weights_(args.weights[direction]),
        walk_(desc, direction, chunk_rows),
        reserve_(desc, args.reserve, direction),
        noise_reserve_(desc, args.reserve, direction),
        masks_(desc.noise, args.first_layer, direction),
        x_(static_cast<const T*>(args.x)),
        h0_(HiddenOf<const T>(desc, args.h0, direction)),
        c0_(CellOf<const T>(desc, args.c0, direction)),
        y_(static_cast<T*>(args.y) + direction * desc.outputs()),
        hn_(HiddenOf<T>(desc, args.hn, direction)),
        cn_(CellOf<T>(desc, args.cn, direction)) {}

  const Walk& walk() const { return walk_; }
  const Parameters<const T>& weights() const { return weights_; }

  // The input's share of the chunk whose first step this is: [chunk rows, G*H], in order of time.
  const Sum* Project(int64_t first) const {
    const int64_t N = desc_.batch, I = desc_.input, GH = desc_.gate_rows();
    const int64_t end = walk_.End(first), begin_time = walk_.Begin(first, end);
    Sum* sums = arrays_.input_sum;
    if constexpr (kHoldsSums<T>) {
      if (reserve_.gates != nullptr) sums = reserve_.gates + begin_time * N * GH;
    }
    work_.Gemm((end - first) * N, GH, I, Factor<T>{x_ + begin_time * N * I, I},
               Factor<T>{weights_.i2h_weight, I, Transpose::kYes}, 0.0f, Result<Sum>{sums, GH});
    if (desc_.layer_norm) {
      const int64_t row = begin_time * N;
      work_.Normalize(
          desc_, NormalizedRows<T>{begin_time, static_cast<int>((end - first) * N), lengths_, sums,
                                   weights_.i2h_gamma, At(reserve_.normalized_input, row * GH),
                                   At(reserve_.input_rstd, row * NormParts(desc_))});
    }
    return sums;
  }

  // Runs a step of a projected chunk for the rows of the batch from first_row on. The steps before
  // it have been run.
  void RunStep(int64_t index, int64_t first, const Sum* input_sums, int64_t first_row = 0) const {
    RunStep(index, first, input_sums, {first_row, desc_.batch}, &work_);
  }
  void RunStep(int64_t index, int64_t first, const Sum* input_sums, Rows rows, Work* work) const {
    ForwardStep<T> step = StepOf(index, first, input_sums);
    SelectRows(rows, &step);
    if (!desc_.noise.any()) return work->Step(desc_, step, weights_);
    const ForwardNoise<T> noise = NoiseOf(index).OfRows(rows.begin, step.hidden, step.outputs);
    work->BeginNoise(step, noise);
    work->Step(desc_, WithoutNoise(step, noise), weights_);
    work->EndNoise(step, noise);
  }

  // A step of the chunk whose first step is `first`, without its hidden_sum.
  ForwardStep<T> StepOf(int64_t index, int64_t first, const Sum* input_sums) const {
    const int64_t N = desc_.batch, H = desc_.hidden, GH = desc_.gate_rows();
    const int64_t time = walk_.Time(index);
    ForwardStep<T> step = {};
    step.rows = static_cast<int>(N);
    step.hidden = static_cast<int>(H);
    step.outputs = static_cast<int>(desc_.outputs());
    step.options = {desc_.cell().relu, desc_.clip.As<Sum>()};
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
    step.normalized_input = At(reserve_.normalized_input, time * N * GH);
    step.normalized_hidden = At(reserve_.normalized_hidden, time * N * GH);
    step.input_rstd = At(reserve_.input_rstd, time * N * NormParts(desc_));
    step.hidden_rstd = At(reserve_.hidden_rstd, time * N * NormParts(desc_));
    step.c_moments = At(reserve_.c_moments, time * N * 2);
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
  // Leaves only these rows in a step. (In place: a copy would wait for the fields to be written.)
  void SelectRows(Rows rows, ForwardStep<T>* of_all) const {
    ForwardStep<T>& step = *of_all;
    step.rows = static_cast<int>(rows.count());
    if (rows.begin == 0) return;
    const int64_t units = rows.begin * desc_.hidden, gates = rows.begin * desc_.gate_rows();
    const int64_t outputs = rows.begin * desc_.outputs();
    step.lengths = At(step.lengths, rows.begin);
    step.input_sum += gates;
    step.h_prev = At(step.h_prev, outputs);
    step.c_0 = At(step.c_0, units);
    step.c_prev = At(step.c_prev, units);
    step.gates = At(step.gates, gates);
    step.hidden_n = At(step.hidden_n, units);
    step.normalized_input = At(step.normalized_input, gates);
    step.normalized_hidden = At(step.normalized_hidden, gates);
    step.input_rstd = At(step.input_rstd, rows.begin * NormParts(desc_));
    step.hidden_rstd = At(step.hidden_rstd, rows.begin * NormParts(desc_));
    step.c_moments = At(step.c_moments, rows.begin * 2);
    step.h += outputs;
    step.c = At(step.c, units);
    step.c_n = At(step.c_n, units);
    step.y += rows.begin * step.y_stride;
    step.r = At(step.r, units);
  }

  ForwardNoise<T> NoiseOf(int64_t index) const {
    const int64_t time = walk_.Time(index), units = time * desc_.batch * desc_.hidden;
    const ForwardNoiseArrays& own = arrays_.noise;
    ForwardNoise<T> noise = {masks_,
                             index == 0,
                             0,
                             static_cast<Sum*>(own.read_mask),
                             static_cast<T*>(own.read),
                             static_cast<T*>(own.h_new),
                             static_cast<Sum*>(own.c_new)};
    if (noise_reserve_.read != nullptr) {
      noise.read = noise_reserve_.read + time * desc_.batch * desc_.outputs();
    }
    if (noise_reserve_.h != nullptr) noise.h_new = noise_reserve_.h + units;
    if (noise_reserve_.c != nullptr) noise.c_new = noise_reserve_.c + units;
    return noise;
  }

  Sum* C(int64_t time) const {
    return reserve_.c != nullptr ? reserve_.c + time * desc_.batch * desc_.hidden : arrays_.c;
  }

  const LayerDesc& desc_;
  ForwardArraysOfDirection<Sum> arrays_;
  Work& work_;
  const int32_t* lengths_;
  Parameters<const T> weights_;
  Walk walk_;
  Reserve<T> reserve_;
  NoiseReserve<T> noise_reserve_;
  Masks<Sum> masks_;
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
    const Accumulator<T>* sums[kMaxDirections];
    for (size_t d = 0; d < directions.size(); ++d) sums[d] = directions[d].Project(first);
    for (int64_t index = first; index < walk.End(first); ++index) {
      for (size_t d = 0; d < directions.size(); ++d) directions[d].RunStep(index, first, sums[d]);
    }
  }
}

}  // namespace fastrnn
