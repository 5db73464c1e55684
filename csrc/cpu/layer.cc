// The CPU backend: matrix products on oneDNN, cells vectorised in pointwise.cc.
//
// A direction is worked through in chunks of time. Per chunk, one product projects the inputs of
// all its steps; per step, one product with the recurrent weights and one pass over the cells.
// Backward mirrors this, and adds one product per chunk for dx and each weight gradient. The
// running states live in the output arrays (hn and cn, dh0 and dc0), so a step reads and writes
// dense [N, H] arrays in both directions.
#include <algorithm>
#include <cstring>
#include <optional>

#include "../error.h"
#include "../layout.h"
#include "../rnn.h"
#include "gemm.h"
#include "pointwise.h"
#include "threads.h"

namespace fastrnn {
namespace cpu {
namespace {

// Rows of a chunk: enough that the products run at full rate and re-reading the weight gradients
// once a chunk does not show, few enough that a long sequence does not need a workspace as long.
constexpr int64_t kChunkRows = 2048;

// Packing costs about as much as two steps; below this many steps the weights are read as they are.
constexpr int64_t kMinPackedSteps = 4;

// Hidden units that one thread works on at a time, and the least total that more than one thread is
// woken for.
constexpr int64_t kUnitsPerTask = 512;
constexpr int64_t kMinParallelUnits = 4096;

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

bool Packed(const LayerDesc& desc) { return desc.steps >= kMinPackedSteps; }

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

// ----------------------------------------------------------------------------------------------
// forward

struct ForwardBuffers {
  StepProduct h2h;
  float* share;  // [N, G*H] hidden state's share of the pre-activations
  float* bias;   // [G*H]
  float* gates;  // [chunk rows, G*H], unless the reserve takes them
  size_t bytes;

  ForwardBuffers(const LayerDesc& desc, void* workspace)
      : h2h(desc, desc.gate_rows(), desc.hidden, Transpose::kYes, false) {
    Carver carver(workspace);
    h2h.Take(&carver);
    share = carver.Take<float>(desc.batch * desc.gate_rows());
    bias = carver.Take<float>(desc.gate_rows());
    const int64_t chunk_rows = Walk(desc, 0, kChunkRows).chunk_steps * desc.batch;
    gates = GatesInReserve(desc) ? nullptr : carver.Take<float>(chunk_rows * desc.gate_rows());
    bytes = carver.used();
  }
};

class ForwardDirection {
 public:
  ForwardDirection(const LayerDesc& desc, const ForwardArgs& args, ForwardBuffers* buffers,
                   int64_t direction)
      : desc_(desc),
        buffers_(*buffers),
        weights_(args.weights[direction]),
        walk_(desc, direction, kChunkRows),
        reserve_(desc, args.reserve, direction),
        x_(static_cast<const float*>(args.x)),
        y_(static_cast<float*>(args.y) + direction * desc.hidden),
        h_(StateOf<float>(desc, args.hn, direction)),
        c_prev_(StateOf<const float>(desc, args.c0, direction)),
        cn_(StateOf<float>(desc, args.cn, direction)) {
    const auto* h0 = StateOf<const float>(desc, args.h0, direction);
    std::copy_n(h0, desc.batch * desc.hidden, h_);
  }

  void Run() {
    buffers_.h2h.Load(weights_.h2h_weight);
    SumBiases();
    for (int64_t first = 0; first < walk_.steps; first = walk_.End(first)) {
      const int64_t end = walk_.End(first);
      const int64_t begin_time = walk_.Begin(first, end);
      float* gates = GatesInReserve(desc_)
                         ? reserve_.gates + begin_time * desc_.batch * desc_.gate_rows()
                         : buffers_.gates;
      Gemm((end - first) * desc_.batch, desc_.gate_rows(), desc_.input,
           {x_ + begin_time * desc_.batch * desc_.input, desc_.input},
           {weights_.i2h_weight, desc_.input, Transpose::kYes}, 0.0f, gates, desc_.gate_rows());
      for (int64_t step = first; step < end; ++step) {
        const int64_t time = walk_.Time(step);
        Step(time, gates + (time - begin_time) * desc_.batch * desc_.gate_rows());
      }
    }
    if (desc_.has_cell() && c_prev_ != cn_) std::copy_n(c_prev_, desc_.batch * desc_.hidden, cn_);
  }

 private:
  // The h2h bias of GRU's new gate stands behind the reset gate and is added there.
  void SumBiases() {
    const int64_t both = desc_.mode == Mode::kGru ? 2 * desc_.hidden : desc_.gate_rows();
    for (int64_t j = 0; j < desc_.gate_rows(); ++j) {
      buffers_.bias[j] = weights_.i2h_bias[j] + (j < both ? weights_.h2h_bias[j] : 0.0f);
    }
  }

  void Step(int64_t time, float* gates) {
    const int64_t H = desc_.hidden, GH = desc_.gate_rows(), y_stride = desc_.directions * H;
    buffers_.h2h.Run(h_, buffers_.share);
    float* y = y_ + time * desc_.batch * y_stride;
    const int64_t state = time * desc_.batch * H;
    float* c = reserve_.c != nullptr ? reserve_.c + state : cn_;
    float* hidden_n = At(reserve_.hidden_n, state);
    ForUnits(desc_.batch, H, [&](int64_t n, Units units) {
      float* share = buffers_.share + n * GH;
      float* h = h_ + n * H;
      float* row_y = y + n * y_stride;
      switch (desc_.mode) {
        case Mode::kLstm:
          return LstmForward(
              {gates + n * GH, share, buffers_.bias, c_prev_ + n * H, c + n * H, h, row_y}, units);
        case Mode::kGru:
          return GruForward({gates + n * GH, share, buffers_.bias, weights_.h2h_bias + 2 * H,
                             hidden_n != nullptr ? hidden_n + n * H : share + 2 * H, h, row_y},
                            units);
        case Mode::kRnnTanh:
          return RnnTanhForward({gates + n * GH, share, buffers_.bias, h, row_y}, units);
        case Mode::kRnnRelu:
          return RnnReluForward({gates + n * GH, share, buffers_.bias, h, row_y}, units);
      }
    });
    c_prev_ = c;
  }

  const LayerDesc& desc_;
  ForwardBuffers& buffers_;
  Parameters<const float> weights_;
  Walk walk_;
  Reserve<float> reserve_;
  const float* x_;
  float* y_;             // the direction's first column
  float* h_;             // [N, H], running
  const float* c_prev_;  // [N, H]
  float* cn_;
};

// ---------------------------------------------------------------------------------------------
// backward

struct BackwardBuffers {
  StepProduct h2h;
  float* dgates_x;  // [chunk rows, G*H]
  float* dgates_h;  // the same array, but for GRU, whose new gate has two different gradients
  size_t bytes;

  BackwardBuffers(const LayerDesc& desc, void* workspace)
      : h2h(desc, desc.hidden, desc.gate_rows(), Transpose::kNo, desc.mode == Mode::kGru) {
    Carver carver(workspace);
    h2h.Take(&carver);
    const int64_t values = Walk(desc, 0, kChunkRows).chunk_steps * desc.batch * desc.gate_rows();
    dgates_x = carver.Take<float>(values);
    dgates_h = desc.mode == Mode::kGru ? carver.Take<float>(values) : dgates_x;
    bytes = carver.used();
  }
};

class BackwardDirection {
 public:
  BackwardDirection(const LayerDesc& desc, const BackwardArgs& args, BackwardBuffers* buffers,
                    int64_t direction)
      : desc_(desc),
        buffers_(*buffers),
        weights_(args.weights[direction]),
        gradients_(args.gradients[direction]),
        walk_(desc, direction, kChunkRows),
        reserve_(desc, args.reserve, direction),
        add_to_dx_(direction > 0),
        y_stride_(desc.directions * desc.hidden),
        x_(static_cast<const float*>(args.x)),
        dx_(static_cast<float*>(args.dx)),
        y_(static_cast<const float*>(args.y) + direction * desc.hidden),
        dy_(static_cast<const float*>(args.dy) + direction * desc.hidden),
        h0_(StateOf<const float>(desc, args.h0, direction)),
        c0_(StateOf<const float>(desc, args.c0, direction)),
        dh_(StateOf<float>(desc, args.dh0, direction)),
        dc_(StateOf<float>(desc, args.dc0, direction)) {
    const int64_t size = desc.batch * desc.hidden;
    std::copy_n(StateOf<const float>(desc, args.dhn, direction), size, dh_);
    if (desc.has_cell()) std::copy_n(StateOf<const float>(desc, args.dcn, direction), size, dc_);
  }

  void Run() {
    buffers_.h2h.Load(weights_.h2h_weight);
    // The chunks of the forward pass, last first.
    int64_t first = (walk_.steps - 1) / walk_.chunk_steps * walk_.chunk_steps;
    for (; first >= 0; first -= walk_.chunk_steps) {
      const int64_t end = walk_.End(first);
      const int64_t begin_time = walk_.Begin(first, end);
      for (int64_t step = end - 1; step >= first; --step) {
        Step(step, (walk_.Time(step) - begin_time) * desc_.batch * desc_.gate_rows());
      }
      InputGradients(begin_time, end - first, end == walk_.steps);
      RecurrentGradients(first, end);
    }
  }

 private:
  const float* Y(int64_t time) const { return y_ + time * desc_.batch * y_stride_; }

  void Step(int64_t step, int64_t offset) {
    const int64_t H = desc_.hidden, GH = desc_.gate_rows(), N = desc_.batch;
    const int64_t time = walk_.Time(step);
    const int64_t prev = step > 0 ? walk_.Time(step - 1) : -1;
    const float* dy = dy_ + time * N * y_stride_;
    const float* gates = At(reserve_.gates, time * N * GH);
    const float* c = At(reserve_.c, time * N * H);
    const float* hidden_n = At(reserve_.hidden_n, time * N * H);
    const float* h_prev = step > 0 ? Y(prev) : h0_;
    const int64_t h_prev_stride = step > 0 ? y_stride_ : H;
    const float* c_prev = step > 0 ? At(reserve_.c, prev * N * H) : c0_;
    float* dgates_x = buffers_.dgates_x + offset;
    float* dgates_h = buffers_.dgates_h + offset;
    ForUnits(N, H, [&](int64_t n, Units units) {
      const float* row_dy = dy + n * y_stride_;
      float* dh = dh_ + n * H;
      switch (desc_.mode) {
        case Mode::kLstm:
          return LstmBackward({gates + n * GH, c_prev + n * H, c + n * H, row_dy, dh, dc_ + n * H,
                               dgates_x + n * GH},
                              units);
        case Mode::kGru:
          return GruBackward({gates + n * GH, hidden_n + n * H, h_prev + n * h_prev_stride, row_dy,
                              dh, dgates_x + n * GH, dgates_h + n * GH},
                             units);
        case Mode::kRnnTanh:
          return RnnTanhBackward({Y(time) + n * y_stride_, row_dy, dh, dgates_x + n * GH}, units);
        case Mode::kRnnRelu:
          return RnnReluBackward({Y(time) + n * y_stride_, row_dy, dh, dgates_x + n * GH}, units);
      }
    });
    buffers_.h2h.Run(dgates_h, dh_);
  }

  // dx, and the gradients of the input weights and both biases; initial: nothing to add to yet.
  void InputGradients(int64_t begin_time, int64_t steps, bool initial) {
    const int64_t GH = desc_.gate_rows(), I = desc_.input, rows = steps * desc_.batch;
    const float* x = x_ + begin_time * desc_.batch * I;
    float* dx = dx_ + begin_time * desc_.batch * I;
    Gemm(rows, I, GH, {buffers_.dgates_x, GH}, {weights_.i2h_weight, I}, add_to_dx_ ? 1.0f : 0.0f,
         dx, I);
    Gemm(GH, I, rows, {buffers_.dgates_x, GH, Transpose::kYes}, {x, I}, initial ? 0.0f : 1.0f,
         gradients_.i2h_weight, I);
    BiasGradient(buffers_.dgates_x, rows, initial, gradients_.i2h_bias);
    if (buffers_.dgates_h == buffers_.dgates_x) {
      std::copy_n(gradients_.i2h_bias, GH, gradients_.h2h_bias);
    } else {
      BiasGradient(buffers_.dgates_h, rows, initial, gradients_.h2h_bias);
    }
  }

  void BiasGradient(const float* dgates, int64_t rows, bool initial, float* gradient) {
    const int64_t GH = desc_.gate_rows();
    const auto sum = [&](int64_t, Units units) {
      SumRows(dgates, rows, GH, units.begin, units.end, !initial, gradient);
    };
    ForUnits(1, GH, sum, rows);
  }

  // The recurrent weights saw the previous step's output, and at the first step the initial state.
  void RecurrentGradients(int64_t first, int64_t end) {
    const int64_t GH = desc_.gate_rows(), H = desc_.hidden, N = desc_.batch;
    float beta = end == walk_.steps ? 0.0f : 1.0f;
    const int64_t begin_time = walk_.Begin(first, end);
    const int64_t later = std::max<int64_t>(first, 1);
    if (later < end) {
      const float* dgates = buffers_.dgates_h + (walk_.Begin(later, end) - begin_time) * N * GH;
      const float* y = Y(walk_.Begin(later - 1, end - 1));
      Gemm(GH, H, (end - later) * N, {dgates, GH, Transpose::kYes}, {y, y_stride_}, beta,
           gradients_.h2h_weight, H);
      beta = 1.0f;
    }
    if (first == 0) {
      const float* dgates = buffers_.dgates_h + (walk_.Time(0) - begin_time) * N * GH;
      Gemm(GH, H, N, {dgates, GH, Transpose::kYes}, {h0_, H}, beta, gradients_.h2h_weight, H);
    }
  }

  const LayerDesc& desc_;
  BackwardBuffers& buffers_;
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
  float* dh_;  // [N, H], running
  float* dc_;  // [N, H], running
};

void ExpectCovered(const LayerDesc& desc, const int32_t* lengths) {
  FASTRNN_EXPECTS(desc.dtype == DType::kFloat32,
                  std::string("dtype is ") + Name(desc.dtype) + ", expected float32 on the CPU");
  FASTRNN_EXPECTS(lengths == nullptr, "lengths were given, expected none on the CPU");
}

}  // namespace

// The number of threads decides over oneDNN's buffers, so sizes are asked for under the same
// number.
size_t ForwardWorkspaceBytes(const LayerDesc& desc) {
  ExpectCovered(desc, nullptr);
  const ThreadScope threads;
  return ForwardBuffers(desc, nullptr).bytes;
}

size_t BackwardWorkspaceBytes(const LayerDesc& desc) {
  ExpectCovered(desc, nullptr);
  const ThreadScope threads;
  return BackwardBuffers(desc, nullptr).bytes;
}

void Forward(const LayerDesc& desc, const ForwardArgs& args) {
  ExpectCovered(desc, args.lengths);
  const ThreadScope threads;
  ForwardBuffers buffers(desc, args.workspace);
  for (int64_t d = 0; d < desc.directions; ++d) ForwardDirection(desc, args, &buffers, d).Run();
}

void Backward(const LayerDesc& desc, const BackwardArgs& args) {
  ExpectCovered(desc, args.lengths);
  const ThreadScope threads;
  BackwardBuffers buffers(desc, args.workspace);
  for (int64_t d = 0; d < desc.directions; ++d) BackwardDirection(desc, args, &buffers, d).Run();
}

}  // namespace cpu
}  // namespace fastrnn
