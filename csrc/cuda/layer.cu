// The CUDA backend, stepwise: matrix products through blas.h, cells in pointwise.cuh.
//
// A direction is worked through in chunks of time. Per chunk, one product projects the inputs of
// all its steps; per step, one product with the recurrent weights and one kernel for everything
// else. Backward mirrors this, and adds one product per chunk for dx and each weight gradient. The
// running states live in the output arrays (hn and cn, dh0 and dc0).
#include <algorithm>
#include <limits>

#include "../error.h"
#include "../layout.h"
#include "../rnn.h"
#include "blas.h"
#include "pointwise.cuh"

namespace fastrnn {
namespace cuda {
namespace {

// Bytes of workspace that the gates of a chunk may take: enough that the products over a chunk run
// at full rate, and far from the 2 GiB that MXNet can give. Emulated builds set it lower, so that
// small tests have chunks too.
#if !defined(FASTRNN_CUDA_CHUNK_BYTES)
#define FASTRNN_CUDA_CHUNK_BYTES (128 << 20)
#endif
constexpr int64_t kChunkBytes = FASTRNN_CUDA_CHUNK_BYTES;

// Makes a device current for the length of a scope. MXNet's runtime and ours keep the current
// device each for itself, so neither may rely on the other's.
class DeviceScope {
 public:
  explicit DeviceScope(int device) {
    FASTRNN_CUDA_TRY(cudaGetDevice(&previous_));
    changed_ = device != previous_;
    if (changed_) FASTRNN_CUDA_TRY(cudaSetDevice(device));
  }
  // What was current a moment ago can be made current again; a destructor could not report it.
  ~DeviceScope() {
    if (changed_) cudaSetDevice(previous_);
  }
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  int previous_ = 0;
  bool changed_ = false;
};

// The kernels count rows, and the gates of a row, in ints.
void ExpectKernelSizes(const LayerDesc& desc) {
  constexpr int64_t kMost = std::numeric_limits<int>::max();
  FASTRNN_EXPECTS(desc.batch <= kMost, "batch size is " + std::to_string(desc.batch) +
                                           ", expected at most " + std::to_string(kMost));
  FASTRNN_EXPECTS(desc.gate_rows() <= kMost - kStepThreads,
                  "hidden size is " + std::to_string(desc.hidden) + ", expected at most " +
                      std::to_string((kMost - kStepThreads) / Gates(desc.mode)));
}

// `buffers` arrays of [chunk rows, G*H] are needed at once.
int64_t MaxChunkRows(const LayerDesc& desc, int64_t buffers) {
  const int64_t row = buffers * desc.gate_rows() * static_cast<int64_t>(sizeof(float));
  return std::max<int64_t>(1, kChunkBytes / row);
}

// GRU's reset gate stands between the hidden state's share of the new gate and the sum.
bool SharesDiffer(const LayerDesc& desc) { return desc.mode == Mode::kGru; }

void CopyState(float* to, const float* from, const LayerDesc& desc, cudaStream_t stream) {
  FASTRNN_CUDA_TRY(cudaMemcpyAsync(to, from, desc.batch * desc.hidden * sizeof(float),
                                   cudaMemcpyDeviceToDevice, stream));
}

template <class Step>
void LaunchStep(const ForwardStep& step, cudaStream_t stream) {
  FASTRNN_CUDA_TRY(
      Launch(ForwardKernel<Step>, StepGrid(step.rows, step.hidden), kStepThreads, 0, stream, step));
}

template <class Step>
void LaunchStep(const BackwardStep& step, cudaStream_t stream) {
  FASTRNN_CUDA_TRY(Launch(BackwardKernel<Step>, StepGrid(step.rows, step.hidden), kStepThreads, 0,
                          stream, step));
}

template <class Arguments>
void LaunchStep(Mode mode, const Arguments& step, cudaStream_t stream) {
  switch (mode) {
    case Mode::kLstm:
      return LaunchStep<LstmStep>(step, stream);
    case Mode::kGru:
      return LaunchStep<GruStep>(step, stream);
    case Mode::kRnnTanh:
      return LaunchStep<RnnStep<cell::TanhActivation>>(step, stream);
    case Mode::kRnnRelu:
      return LaunchStep<RnnStep<cell::ReluActivation>>(step, stream);
  }
}

// ----------------------------------------------------------------------------------------------
// forward

struct ForwardBuffers {
  float* hidden_sum;  // [N, G*H]
  float* gates;       // [chunk rows, G*H], unless the reserve takes them
  char* blas;
  size_t bytes;

  ForwardBuffers(const LayerDesc& desc, void* workspace) {
    Carver carver(workspace);
    hidden_sum = carver.Take<float>(desc.batch * desc.gate_rows());
    const int64_t rows = Walk(desc, 0, MaxChunkRows(desc, 1)).chunk_steps * desc.batch;
    gates = GatesInReserve(desc) ? nullptr : carver.Take<float>(rows * desc.gate_rows());
    blas = carver.Take<char>(Blas::WorkspaceBytes());
    bytes = carver.used();
  }
};

class ForwardDirection {
 public:
  ForwardDirection(const LayerDesc& desc, const ForwardArgs& args, const ForwardBuffers& buffers,
                   Blas* blas, int64_t direction)
      : desc_(desc),
        buffers_(buffers),
        blas_(*blas),
        stream_(static_cast<cudaStream_t>(args.stream)),
        weights_(args.weights[direction]),
        walk_(desc, direction, MaxChunkRows(desc, 1)),
        reserve_(desc, args.reserve, direction),
        x_(static_cast<const float*>(args.x)),
        y_(static_cast<float*>(args.y) + direction * desc.hidden),
        h_prev_(StateOf<const float>(desc, args.h0, direction)),
        h_(StateOf<float>(desc, args.hn, direction)),
        c_prev_(StateOf<const float>(desc, args.c0, direction)),
        cn_(StateOf<float>(desc, args.cn, direction)) {}

  void Run() {
    const int64_t N = desc_.batch, I = desc_.input, GH = desc_.gate_rows();
    for (int64_t first = 0; first < walk_.steps; first = walk_.End(first)) {
      const int64_t end = walk_.End(first);
      const int64_t begin_time = walk_.Begin(first, end);
      float* gates = GatesInReserve(desc_) ? reserve_.gates + begin_time * N * GH : buffers_.gates;
      blas_.Gemm((end - first) * N, GH, I, {x_ + begin_time * N * I, I},
                 {weights_.i2h_weight, I, Transpose::kYes}, 0.0f, gates, GH);
      for (int64_t step = first; step < end; ++step) {
        const int64_t time = walk_.Time(step);
        Step(time, gates + (time - begin_time) * N * GH);
      }
    }
    if (desc_.has_cell() && c_prev_ != cn_) CopyState(cn_, c_prev_, desc_, stream_);
  }

 private:
  void Step(int64_t time, float* gates) {
    const int64_t N = desc_.batch, H = desc_.hidden, GH = desc_.gate_rows();
    blas_.Gemm(N, GH, H, {h_prev_, H}, {weights_.h2h_weight, H, Transpose::kYes}, 0.0f,
               buffers_.hidden_sum, GH);
    ForwardStep step = {};
    step.rows = static_cast<int>(N);
    step.hidden = static_cast<int>(H);
    step.keep = GatesInReserve(desc_);
    step.i2h_bias = weights_.i2h_bias;
    step.h2h_bias = weights_.h2h_bias;
    step.hidden_sum = buffers_.hidden_sum;
    step.gates = gates;
    step.h_prev = h_prev_;
    step.c_prev = c_prev_;
    step.hidden_n = At(reserve_.hidden_n, time * N * H);
    step.h = h_;
    step.c = reserve_.c != nullptr ? reserve_.c + time * N * H : cn_;
    step.y_stride = desc_.directions * H;
    step.y = y_ + time * N * step.y_stride;
    LaunchStep(desc_.mode, step, stream_);
    h_prev_ = h_;
    c_prev_ = step.c;
  }

  const LayerDesc& desc_;
  const ForwardBuffers& buffers_;
  Blas& blas_;
  cudaStream_t stream_;
  Parameters<const float> weights_;
  Walk walk_;
  Reserve<float> reserve_;
  const float* x_;
  float* y_;  // the direction's first column
  const float* h_prev_;
  float* h_;  // [N, H], running
  const float* c_prev_;
  float* cn_;  // [N, H], running where there is no reserve
};

// ----------------------------------------------------------------------------------------------
// backward

struct BackwardBuffers {
  float* dgates_x;  // [chunk rows, G*H]
  float* dgates_h;  // [chunk rows, G*H]; the same array where the shares do not differ
  float* partial;   // [parts, G*H]
  char* blas;
  int64_t max_rows;
  size_t bytes;

  BackwardBuffers(const LayerDesc& desc, void* workspace)
      : max_rows(MaxChunkRows(desc, SharesDiffer(desc) ? 2 : 1)) {
    Carver carver(workspace);
    const int64_t rows = Walk(desc, 0, max_rows).chunk_steps * desc.batch;
    dgates_x = carver.Take<float>(rows * desc.gate_rows());
    dgates_h = SharesDiffer(desc) ? carver.Take<float>(rows * desc.gate_rows()) : dgates_x;
    partial = carver.Take<float>(SumParts(rows) * desc.gate_rows());
    blas = carver.Take<char>(Blas::WorkspaceBytes());
    bytes = carver.used();
  }
};

class BackwardDirection {
 public:
  BackwardDirection(const LayerDesc& desc, const BackwardArgs& args, const BackwardBuffers& buffers,
                    Blas* blas, int64_t direction)
      : desc_(desc),
        buffers_(buffers),
        blas_(*blas),
        stream_(static_cast<cudaStream_t>(args.stream)),
        weights_(args.weights[direction]),
        gradients_(args.gradients[direction]),
        walk_(desc, direction, buffers.max_rows),
        reserve_(desc, args.reserve, direction),
        add_to_dx_(direction > 0),
        y_stride_(desc.directions * desc.hidden),
        x_(static_cast<const float*>(args.x)),
        dx_(static_cast<float*>(args.dx)),
        y_(static_cast<const float*>(args.y) + direction * desc.hidden),
        dy_(static_cast<const float*>(args.dy) + direction * desc.hidden),
        h0_(StateOf<const float>(desc, args.h0, direction)),
        c0_(StateOf<const float>(desc, args.c0, direction)),
        dh_next_(StateOf<const float>(desc, args.dhn, direction)),
        dc_next_(StateOf<const float>(desc, args.dcn, direction)),
        dh_(StateOf<float>(desc, args.dh0, direction)),
        dc_(StateOf<float>(desc, args.dc0, direction)) {}

  // The chunks in reverse order; the last chunk may be the shorter one, as in forward.
  void Run() {
    const int64_t last = (walk_.steps - 1) / walk_.chunk_steps * walk_.chunk_steps;
    for (int64_t first = last; first >= 0; first -= walk_.chunk_steps) {
      const int64_t end = walk_.End(first);
      const int64_t begin_time = walk_.Begin(first, end);
      for (int64_t step = end - 1; step >= first; --step) {
        Step(step, (walk_.Time(step) - begin_time) * desc_.batch * desc_.gate_rows());
      }
      const bool initial = end == walk_.steps;
      InputGradients(begin_time, end - first, initial);
      RecurrentGradients(first, end, initial);
      BiasGradients((end - first) * desc_.batch, initial);
    }
  }

 private:
  const float* Y(int64_t time) const { return y_ + time * desc_.batch * y_stride_; }

  void Step(int64_t index, int64_t offset) {
    const int64_t N = desc_.batch, H = desc_.hidden, GH = desc_.gate_rows();
    const int64_t time = walk_.Time(index);
    const bool initial = index == 0;
    const int64_t previous = initial ? -1 : walk_.Time(index - 1);
    BackwardStep step = {};
    step.rows = static_cast<int>(N);
    step.hidden = static_cast<int>(H);
    step.gates = At(reserve_.gates, time * N * GH);
    step.hidden_n = At(reserve_.hidden_n, time * N * H);
    step.c = At(reserve_.c, time * N * H);
    step.c_prev = initial ? c0_ : At(reserve_.c, previous * N * H);
    step.h_prev = initial ? h0_ : Y(previous);
    step.h_prev_stride = initial ? H : y_stride_;
    step.y = Y(time);
    step.dy = dy_ + time * N * y_stride_;
    step.y_stride = y_stride_;
    step.dh_next = dh_next_;
    step.dc_next = dc_next_;
    step.dh = dh_;
    step.dc = dc_;
    step.dgates_x = buffers_.dgates_x + offset;
    step.dgates_h = buffers_.dgates_h + offset;
    LaunchStep(desc_.mode, step, stream_);
    // GRU's kernel has put the share in dh_ that does not pass the gates.
    blas_.Gemm(N, H, GH, {step.dgates_h, GH}, {weights_.h2h_weight, H},
               desc_.mode == Mode::kGru ? 1.0f : 0.0f, dh_, H);
    dh_next_ = dh_;
    dc_next_ = dc_;
  }

  // dx and the input weights' gradient; initial: nothing to add to yet.
  void InputGradients(int64_t begin_time, int64_t steps, bool initial) {
    const int64_t GH = desc_.gate_rows(), I = desc_.input, rows = steps * desc_.batch;
    const int64_t offset = begin_time * desc_.batch * I;
    blas_.Gemm(rows, I, GH, {buffers_.dgates_x, GH}, {weights_.i2h_weight, I},
               add_to_dx_ ? 1.0f : 0.0f, dx_ + offset, I);
    blas_.Gemm(GH, I, rows, {buffers_.dgates_x, GH, Transpose::kYes}, {x_ + offset, I},
               initial ? 0.0f : 1.0f, gradients_.i2h_weight, I);
  }

  // The recurrent weights saw the previous step's output, and at the first step the initial state.
  void RecurrentGradients(int64_t first, int64_t end, bool initial) {
    const int64_t GH = desc_.gate_rows(), H = desc_.hidden, N = desc_.batch;
    float beta = initial ? 0.0f : 1.0f;
    const int64_t begin_time = walk_.Begin(first, end);
    const int64_t later = std::max<int64_t>(first, 1);
    if (later < end) {
      const float* dgates = buffers_.dgates_h + (walk_.Begin(later, end) - begin_time) * N * GH;
      const float* y = Y(walk_.Begin(later - 1, end - 1));
      blas_.Gemm(GH, H, (end - later) * N, {dgates, GH, Transpose::kYes}, {y, y_stride_}, beta,
                 gradients_.h2h_weight, H);
      beta = 1.0f;
    }
    if (first == 0) {
      const float* dgates = buffers_.dgates_h + (walk_.Time(0) - begin_time) * N * GH;
      blas_.Gemm(GH, H, N, {dgates, GH, Transpose::kYes}, {h0_, H}, beta, gradients_.h2h_weight, H);
    }
  }

  void BiasGradients(int64_t rows, bool initial) {
    if (SharesDiffer(desc_)) {
      SumRows(buffers_.dgates_x, rows, initial, gradients_.i2h_bias, nullptr);
      SumRows(buffers_.dgates_h, rows, initial, gradients_.h2h_bias, nullptr);
    } else {
      SumRows(buffers_.dgates_x, rows, initial, gradients_.i2h_bias, gradients_.h2h_bias);
    }
  }

  void SumRows(const float* dgates, int64_t rows, bool initial, float* sums, float* copy) {
    const int64_t columns = desc_.gate_rows(), parts = SumParts(rows);
    const int64_t rows_per_part = (rows + parts - 1) / parts;
    const auto blocks = [columns](int64_t each) {
      return static_cast<unsigned>((columns + each - 1) / each);
    };
    FASTRNN_CUDA_TRY(Launch(SumRowsKernel, dim3(blocks(kWarp), static_cast<unsigned>(parts)),
                            dim3(kWarp, kSumThreads), 0, stream_, dgates, rows, columns,
                            rows_per_part, buffers_.partial));
    FASTRNN_CUDA_TRY(Launch(SumPartsKernel, blocks(kStepThreads), kStepThreads, 0, stream_,
                            buffers_.partial, static_cast<int>(parts), columns, !initial, sums,
                            copy));
  }

  const LayerDesc& desc_;
  const BackwardBuffers& buffers_;
  Blas& blas_;
  cudaStream_t stream_;
  Parameters<const float> weights_;
  Parameters<float> gradients_;
  Walk walk_;
  Reserve<const float> reserve_;
  bool add_to_dx_;  // the other direction has written it
  int64_t y_stride_;
  const float* x_;
  float* dx_;
  const float* y_;  // the direction's first column, as of dy_
  const float* dy_;
  const float* h0_;
  const float* c0_;
  const float* dh_next_;
  const float* dc_next_;
  float* dh_;  // [N, H], running
  float* dc_;  // [N, H], running
};

}  // namespace

size_t ForwardWorkspaceBytes(const LayerDesc& desc) { return ForwardBuffers(desc, nullptr).bytes; }

size_t BackwardWorkspaceBytes(const LayerDesc& desc) {
  return BackwardBuffers(desc, nullptr).bytes;
}

void Forward(const LayerDesc& desc, const ForwardArgs& args) {
  ExpectKernelSizes(desc);
  const DeviceScope device(desc.device_index);
  const ForwardBuffers buffers(desc, args.workspace);
  Blas blas(desc.device_index, args.stream, buffers.blas);
  for (int64_t d = 0; d < desc.directions; ++d) {
    ForwardDirection(desc, args, buffers, &blas, d).Run();
  }
}

void Backward(const LayerDesc& desc, const BackwardArgs& args) {
  ExpectKernelSizes(desc);
  const DeviceScope device(desc.device_index);
  const BackwardBuffers buffers(desc, args.workspace);
  Blas blas(desc.device_index, args.stream, buffers.blas);
  for (int64_t d = 0; d < desc.directions; ++d) {
    BackwardDirection(desc, args, buffers, &blas, d).Run();
  }
}

}  // namespace cuda
}  // namespace fastrnn
