// One direction of a layer's backward pass: what its steps are given, chunk by chunk, and the
// products over a chunk. The algorithms differ in how they run a chunk's steps.
#pragma once

#include "arrays.cuh"
#include "stepwise.h"

namespace fastrnn {
namespace cuda {
// Bytes of a copy of inputs, in which the rows past their length are zeros.
constexpr int64_t kInputCopyBytes = FASTRNN_CUDA_CHUNK_BYTES / 16;

template <class T>
struct BackwardBuffers {
  int64_t copy_rows;
  T* dgates_x;      // [chunk rows, G*H]
  T* dgates_h;      // [chunk rows, G*H]; the same array where the shares do not differ
  T* dgates_first;  // [N, G*H]
  T* input_copy;    // [copy_rows, I]
  float* dh;        // [N, H], running
  float* dc;        // [N, H], running
  float* partial;   // [parts, G*H]
  // Where the gradients are summed up; null in float32, where they are summed up in place.
  Parameters<float> sums = Parameters<float>(WeightGradients{});
  char* blas;

  BackwardBuffers(const LayerDesc& desc, Carver* carver) {
    const int64_t GH = desc.gate_rows(), states = desc.batch * desc.hidden;
    const int64_t rows = Walk(desc, 0, BackwardChunkRows(desc)).chunk_steps * desc.batch;
    dgates_x = carver->Take<T>(rows * GH);
    dgates_h = SharesDiffer(desc) ? carver->Take<T>(rows * GH) : dgates_x;
    dgates_first = carver->Take<T>(desc.batch * GH);
    const int64_t most = kInputCopyBytes / (desc.input * static_cast<int64_t>(sizeof(T)));
    copy_rows = std::min(rows, std::max<int64_t>(1, most));
    input_copy = carver->Take<T>(copy_rows * desc.input);
    dh = carver->Take<float>(states);
    dc = desc.has_cell() ? carver->Take<float>(states) : nullptr;
    partial = carver->Take<float>(SumParts(rows) * GH);
    if (!std::is_same<T, float>::value) {
      sums.i2h_weight = carver->Take<float>(GH * desc.input);
      sums.h2h_weight = carver->Take<float>(GH * desc.hidden);
      sums.i2h_bias = carver->Take<float>(GH);
      sums.h2h_bias = carver->Take<float>(GH);
    }
    blas = carver->Take<char>(Blas::WorkspaceBytes());
  }
};

template <class T>
class BackwardDirection {
 public:
  // blas is on the stream. The second direction adds to the dx that the first has written.
  BackwardDirection(const LayerDesc& desc, const BackwardArgs& args,
                    const BackwardBuffers<T>& buffers, Blas* blas, cudaStream_t stream,
                    int64_t direction)
      : desc_(desc),
        buffers_(buffers),
        blas_(*blas),
        stream_(stream),
        lengths_(args.lengths),
        weights_(args.weights[direction]),
        gradients_(args.gradients[direction]),
        sums_(buffers.sums),
        walk_(desc, direction, BackwardChunkRows(desc)),
        reserve_(desc, args.reserve, direction),
        add_to_dx_(direction > 0),
        y_stride_(desc.directions * desc.hidden),
        x_(static_cast<const T*>(args.x)),
        dx_(static_cast<T*>(args.dx)),
        y_(static_cast<const T*>(args.y) + direction * desc.hidden),
        dy_(static_cast<const T*>(args.dy) + direction * desc.hidden),
        h0_(StateOf<const T>(desc, args.h0, direction)),
        c0_(StateOf<const T>(desc, args.c0, direction)),
        dhn_(StateOf<const T>(desc, args.dhn, direction)),
        dcn_(StateOf<const T>(desc, args.dcn, direction)),
        dh0_(StateOf<T>(desc, args.dh0, direction)),
        dc0_(StateOf<T>(desc, args.dc0, direction)) {
    if constexpr (std::is_same<T, float>::value) sums_ = gradients_;
  }

  const Walk& walk() const { return walk_; }
  const T* h2h_weight() const { return weights_.h2h_weight; }

  // Before the first chunk, which is the one with the last steps; it may be the shorter one, as in
  // forward.
  void Begin() const {
    if (lengths_ == nullptr) return;  // Rows of length 0 have no first step.
    const size_t bytes = static_cast<size_t>(desc_.batch * desc_.gate_rows()) * sizeof(T);
    FASTRNN_CUDA_TRY(cudaMemsetAsync(buffers_.dgates_first, 0, bytes, stream_));
  }

  // A step of a chunk, after those behind it, for the rows of the batch from first_row on.
  void RunStep(int64_t index, int64_t first, int64_t first_row = 0) const {
    const int64_t H = desc_.hidden, GH = desc_.gate_rows();
    const BackwardStep<T> step = FromRow(first_row, StepOf(index, first));
    LaunchStep(desc_.mode, step, stream_);
    blas_.Gemm(step.rows, H, GH, Factor(step.dgates_h, GH), Factor(weights_.h2h_weight, H),
               step.dh_wanted ? 1.0f : 0.0f, Into(step.dh, H));
  }

  // What follows from a chunk's steps.
  void SumChunk(int64_t first) {
    const int64_t GH = desc_.gate_rows(), I = desc_.input, N = desc_.batch;
    const int64_t end = walk_.End(first), begin_time = walk_.Begin(first, end);
    blas_.Gemm((end - first) * N, I, GH, Factor(buffers_.dgates_x, GH),
               Factor(weights_.i2h_weight, I), add_to_dx_ ? 1.0f : 0.0f,
               Into(dx_ + begin_time * N * I, I));
    InputWeightGradient(begin_time, end - first);
    RecurrentGradients(first, end);
    BiasGradients((end - first) * N, end == walk_.steps);
  }

  // After the chunk with the first steps.
  void End() {
    const int64_t N = desc_.batch, H = desc_.hidden;
    AddWeights(&h2h_started_, N, H, buffers_.dgates_first, Factor(h0_, H), sums_.h2h_weight);
    Round(buffers_.dh, N * H, dh0_);
    RoundGradients();
  }

  // A step of the chunk that begins with `first`.
  BackwardStep<T> StepOf(int64_t index, int64_t first) const {
    const int64_t N = desc_.batch, H = desc_.hidden, GH = desc_.gate_rows();
    const int64_t time = walk_.Time(index);
    const int64_t offset = (time - walk_.Begin(first, walk_.End(first))) * N * GH;
    const bool initial = index == 0, last = index == walk_.steps - 1;
    const int64_t previous = initial ? time : walk_.Time(index - 1);
    BackwardStep<T> step = {};
    step.rows = static_cast<int>(N);
    step.hidden = static_cast<int>(H);
    step.relu = desc_.mode == Mode::kRnnRelu;
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
    step.dh = buffers_.dh;
    step.dh_wanted = SharesDiffer(desc_) || lengths_ != nullptr;
    step.dc = buffers_.dc;
    step.dc_0 = initial ? dc0_ : nullptr;
    step.dgates_x = buffers_.dgates_x + offset;
    step.dgates_h = buffers_.dgates_h + offset;
    step.dgates_first = buffers_.dgates_first;
    return step;
  }

 private:
  // The step without the rows before this one.
  BackwardStep<T> FromRow(int64_t row, BackwardStep<T> step) const {
    const int64_t states = row * desc_.hidden, gates = row * desc_.gate_rows();
    const int64_t outputs = row * step.y_stride;
    step.rows -= static_cast<int>(row);
    step.lengths = At(step.lengths, row);
    step.gates = At(step.gates, gates);
    step.hidden_n = At(step.hidden_n, states);
    step.h_0 = At(step.h_0, states);
    step.h_prev += outputs;
    step.c_0 = At(step.c_0, states);
    step.c_prev = At(step.c_prev, states);
    step.c = At(step.c, states);
    step.y += outputs;
    step.dy += outputs;
    step.dh_n = At(step.dh_n, states);
    step.dc_n = At(step.dc_n, states);
    step.dh += states;
    step.dc = At(step.dc, states);
    step.dc_0 = At(step.dc_0, states);
    step.dgates_x += gates;
    step.dgates_h += gates;
    step.dgates_first += gates;
    return step;
  }

  const T* Y(int64_t time) const { return y_ + time * desc_.batch * y_stride_; }

  void InputWeightGradient(int64_t begin_time, int64_t steps) {
    const int64_t GH = desc_.gate_rows(), I = desc_.input, N = desc_.batch, rows = steps * N;
    if (lengths_ == nullptr) {
      return AddWeights(&i2h_started_, rows, I, buffers_.dgates_x,
                        Factor(x_ + begin_time * N * I, I), sums_.i2h_weight);
    }
    // A gradient of zero would not do past a row's length: the inputs there may be NaN.
    for (int64_t row = 0; row < rows; row += buffers_.copy_rows) {
      const int64_t count = std::min(buffers_.copy_rows, rows - row);
      FASTRNN_CUDA_TRY(Launch(CopyRowsKernel<T>, ArrayBlocks(count * I), kArrayThreads, 0, stream_,
                              x_, begin_time * N + row, count, I, lengths_, N,
                              buffers_.input_copy));
      AddWeights(&i2h_started_, count, I, buffers_.dgates_x + row * GH,
                 Factor(buffers_.input_copy, I), sums_.i2h_weight);
    }
  }

  // The recurrent weights saw the previous step's output, and in a row's first step its initial
  // state: that part comes at the end. In between, y is zero before the first step of a row that
  // is walked in reverse.
  void RecurrentGradients(int64_t first, int64_t end) {
    const int64_t GH = desc_.gate_rows(), N = desc_.batch;
    const int64_t later = std::max<int64_t>(first, 1);
    if (later == end) return;
    const int64_t skipped = walk_.Begin(later, end) - walk_.Begin(first, end);
    AddWeights(&h2h_started_, (end - later) * N, desc_.hidden, buffers_.dgates_h + skipped * N * GH,
               Factor(Y(walk_.Begin(later - 1, end - 1)), y_stride_), sums_.h2h_weight);
  }

  // sum[G*H, columns] += dgates[rows, G*H]' * seen[rows, columns], or = where it has not started.
  void AddWeights(bool* started, int64_t rows, int64_t columns, const T* dgates, Matrix seen,
                  float* sum) {
    const int64_t GH = desc_.gate_rows();
    blas_.Gemm(GH, columns, rows, Transposed(dgates, GH), seen, *started ? 1.0f : 0.0f,
               Into(sum, columns));
    *started = true;
  }

  void BiasGradients(int64_t rows, bool initial) {
    if (SharesDiffer(desc_)) {
      SumRows(buffers_.dgates_x, rows, initial, sums_.i2h_bias, nullptr);
      SumRows(buffers_.dgates_h, rows, initial, sums_.h2h_bias, nullptr);
    } else {
      SumRows(buffers_.dgates_x, rows, initial, sums_.i2h_bias, sums_.h2h_bias);
    }
  }

  void SumRows(const T* dgates, int64_t rows, bool initial, float* sums, float* copy) {
    const int64_t columns = desc_.gate_rows(), parts = SumParts(rows);
    const int64_t rows_per_part = (rows + parts - 1) / parts;
    const dim3 grid(static_cast<unsigned>((columns + kWarp - 1) / kWarp),
                    static_cast<unsigned>(parts));
    FASTRNN_CUDA_TRY(Launch(SumRowsKernel<T>, grid, dim3(kWarp, kSumThreads), 0, stream_, dgates,
                            rows, columns, rows_per_part, buffers_.partial));
    FASTRNN_CUDA_TRY(Launch(SumPartsKernel, ArrayBlocks(columns), kArrayThreads, 0, stream_,
                            buffers_.partial, static_cast<int>(parts), columns, !initial, sums,
                            copy));
  }

  void RoundGradients() {
    if (std::is_same<T, float>::value) return;
    const int64_t GH = desc_.gate_rows();
    Round(sums_.i2h_weight, GH * desc_.input, gradients_.i2h_weight);
    Round(sums_.h2h_weight, GH * desc_.hidden, gradients_.h2h_weight);
    Round(sums_.i2h_bias, GH, gradients_.i2h_bias);
    Round(sums_.h2h_bias, GH, gradients_.h2h_bias);
  }

  void Round(const float* from, int64_t values, T* to) {
    FASTRNN_CUDA_TRY(
        Launch(RoundKernel<T>, ArrayBlocks(values), kArrayThreads, 0, stream_, from, values, to));
  }

  const LayerDesc& desc_;
  const BackwardBuffers<T>& buffers_;
  Blas& blas_;
  cudaStream_t stream_;
  const int32_t* lengths_;
  Parameters<const T> weights_;
  Parameters<T> gradients_;
  Parameters<float> sums_;
  bool i2h_started_ = false, h2h_started_ = false;  // whether the sums hold something
  Walk walk_;
  Reserve<const T> reserve_;
  bool add_to_dx_;  // the other direction has written it
  int64_t y_stride_;
  const T* x_;
  T* dx_;
  const T* y_;  // the direction's first column, as of dy_
  const T* dy_;
  const T* h0_;
  const T* c0_;
  const T* dhn_;
  const T* dcn_;
  T* dh0_;
  T* dc0_;
};

}  // namespace cuda
}  // namespace fastrnn
