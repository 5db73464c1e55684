// One direction of a layer's forward pass: what its steps are given, chunk by chunk. The algorithms
// differ in how they run a chunk's steps.
#pragma once

#include "stepwise.h"

namespace fastrnn {
namespace cuda {

// In float32 the products of a chunk go where its activated gates will stand.
template <class T>
bool SumsInReserve(const LayerDesc& desc) {
  return kDType<T> == DType::kFloat32 && GatesInReserve(desc);
}

// The workspace of directions that are computed at once, or one after the other.
struct ForwardBuffers {
  float* input_sum[kMaxDirections] = {};  // [chunk rows, G*H], unless the reserve takes it
  float* c[kMaxDirections] = {};          // [N, H], unless the reserve takes it
  // Of the streams that directions are computed on.
  float* hidden_sum[kMaxDirections] = {};  // [N, G*H]
  char* blas[kMaxDirections] = {};

  ForwardBuffers(const LayerDesc& desc, Carver* carver, bool sums_in_reserve,
                 int64_t directions_at_once, int64_t streams) {
    const int64_t rows = Walk(desc, 0, ForwardChunkRows(desc)).chunk_steps * desc.batch;
    for (int64_t d = 0; d < desc.directions; ++d) {
      if (d >= directions_at_once) {
        input_sum[d] = input_sum[0];
        c[d] = c[0];
      } else {
        if (!sums_in_reserve) input_sum[d] = carver->Take<float>(rows * desc.gate_rows());
        if (desc.has_cell() && !desc.reserve) c[d] = carver->Take<float>(desc.batch * desc.hidden);
      }
      hidden_sum[d] = hidden_sum[0];
      blas[d] = blas[0];
      if (d >= streams) continue;
      hidden_sum[d] = carver->Take<float>(desc.batch * desc.gate_rows());
      blas[d] = carver->Take<char>(Blas::WorkspaceBytes());
    }
  }
};

template <class T>
class ForwardDirection {
 public:
  // blas is on the stream.
  ForwardDirection(const LayerDesc& desc, const ForwardArgs& args, const ForwardBuffers& buffers,
                   Blas* blas, cudaStream_t stream, int64_t direction)
      : desc_(desc),
        blas_(*blas),
        stream_(stream),
        hidden_sum_(buffers.hidden_sum[direction]),
        lengths_(args.lengths),
        weights_(args.weights[direction]),
        walk_(desc, direction, ForwardChunkRows(desc)),
        reserve_(desc, args.reserve, direction),
        input_sum_(buffers.input_sum[direction]),
        c_(buffers.c[direction]),
        x_(static_cast<const T*>(args.x)),
        h0_(StateOf<const T>(desc, args.h0, direction)),
        c0_(StateOf<const T>(desc, args.c0, direction)),
        y_(static_cast<T*>(args.y) + direction * desc.hidden),
        hn_(StateOf<T>(desc, args.hn, direction)),
        cn_(StateOf<T>(desc, args.cn, direction)) {}

  const Walk& walk() const { return walk_; }
  const T* h2h_weight() const { return weights_.h2h_weight; }

  // The input's share of the chunk that begins with this step: [chunk rows, G*H], from the earliest
  // time on.
  const float* Project(int64_t first) const {
    const int64_t N = desc_.batch, I = desc_.input, GH = desc_.gate_rows();
    const int64_t end = walk_.End(first), begin_time = walk_.Begin(first, end);
    float* sums = input_sum_;
    if constexpr (std::is_same<T, float>::value) {
      if (reserve_.gates != nullptr) sums = reserve_.gates + begin_time * N * GH;
    }
    blas_.Gemm((end - first) * N, GH, I, Factor(x_ + begin_time * N * I, I),
               Transposed(weights_.i2h_weight, I), 0.0f, Into(sums, GH));
    return sums;
  }

  // A step of a chunk that has been projected, after those before it, for the rows of the batch
  // from first_row on.
  void RunStep(int64_t index, int64_t first, const float* input_sums, int64_t first_row = 0) const {
    const int64_t H = desc_.hidden, GH = desc_.gate_rows();
    ForwardStep<T> step = FromRow(first_row, StepOf(index, first, input_sums));
    blas_.Gemm(step.rows, GH, H, Factor(step.h_prev, H), Transposed(weights_.h2h_weight, H), 0.0f,
               Into(hidden_sum_, GH));
    step.hidden_sum = hidden_sum_;
    LaunchStep(desc_.mode, step, stream_);
  }

  // A step of the chunk that begins with `first`, but for its hidden_sum.
  ForwardStep<T> StepOf(int64_t index, int64_t first, const float* input_sums) const {
    const int64_t N = desc_.batch, H = desc_.hidden, GH = desc_.gate_rows();
    const int64_t time = walk_.Time(index);
    ForwardStep<T> step = {};
    step.rows = static_cast<int>(N);
    step.hidden = static_cast<int>(H);
    step.relu = desc_.mode == Mode::kRnnRelu;
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
    step.y_stride = desc_.directions * H;
    step.y = y_ + time * N * step.y_stride;
    return step;
  }

 private:
  // The step without the rows before this one.
  ForwardStep<T> FromRow(int64_t row, ForwardStep<T> step) const {
    const int64_t states = row * desc_.hidden, gates = row * desc_.gate_rows();
    step.rows -= static_cast<int>(row);
    step.lengths = At(step.lengths, row);
    step.input_sum += gates;
    step.h_prev = At(step.h_prev, states);
    step.c_0 = At(step.c_0, states);
    step.c_prev = At(step.c_prev, states);
    step.gates = At(step.gates, gates);
    step.hidden_n = At(step.hidden_n, states);
    step.h += states;
    step.c = At(step.c, states);
    step.c_n = At(step.c_n, states);
    step.y += row * step.y_stride;
    return step;
  }

  float* C(int64_t time) const {
    return reserve_.c != nullptr ? reserve_.c + time * desc_.batch * desc_.hidden : c_;
  }

  const LayerDesc& desc_;
  Blas& blas_;
  cudaStream_t stream_;
  float* hidden_sum_;
  const int32_t* lengths_;
  Parameters<const T> weights_;
  Walk walk_;
  Reserve<T> reserve_;
  float* input_sum_;
  float* c_;
  const T* x_;
  const T* h0_;
  const T* c0_;
  T* y_;  // the direction's first column
  T* hn_;
  T* cn_;
};

}  // namespace cuda
}  // namespace fastrnn
