#include "layer.h"

namespace fastrnn {
namespace cpu {
namespace {

// Rows of a copy of inputs, in which those that rest are zeros.
constexpr int64_t kInputCopyRows = 256;

struct BackwardBuffers {
  StepProduct h2h;
  float* dgates_x;      // [chunk rows, G*H]
  float* dgates_h;      // the same array, but for GRU, whose new gate has two different gradients
  float* dgates_first;  // [N, G*H] dgates_h of each row's own first step
  int64_t copy_rows;
  float* input_copy;  // [copy_rows, I]
  size_t bytes;

  BackwardBuffers(const LayerDesc& desc, void* workspace)
      : h2h(desc, desc.hidden, desc.gate_rows(), Transpose::kNo, true) {
    Carver carver(workspace);
    h2h.Take(&carver);
    const int64_t GH = desc.gate_rows();
    const int64_t rows = Walk(desc, 0, kChunkRows).chunk_steps * desc.batch;
    dgates_x = carver.Take<float>(rows * GH);
    dgates_h = desc.mode == Mode::kGru ? carver.Take<float>(rows * GH) : dgates_x;
    dgates_first = carver.Take<float>(desc.batch * GH);
    copy_rows = std::min(rows, kInputCopyRows);
    input_copy = carver.Take<float>(copy_rows * desc.input);
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
        row_steps_(args.lengths, walk_),
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
    const int64_t N = desc_.batch, H = desc_.hidden, GH = desc_.gate_rows();
    buffers_.h2h.Load(weights_.h2h_weight);
    std::fill_n(buffers_.dgates_first, N * GH, 0.0f);  // Rows of length 0 have no first step.
    // The chunks of the forward pass, last first.
    int64_t first = (walk_.steps - 1) / walk_.chunk_steps * walk_.chunk_steps;
    for (; first >= 0; first -= walk_.chunk_steps) {
      const int64_t end = walk_.End(first);
      const int64_t begin_time = walk_.Begin(first, end);
      for (int64_t step = end - 1; step >= first; --step) {
        Step(step, (walk_.Time(step) - begin_time) * N * GH);
      }
      InputGradients(begin_time, end - first, end == walk_.steps);
      RecurrentGradients(first, end);
    }
    // The recurrent weights saw the initial state in each row's first step.
    Gemm(GH, H, N, {buffers_.dgates_first, GH, Transpose::kYes}, {h0_, H},
         walk_.steps > 1 ? 1.0f : 0.0f, gradients_.h2h_weight, H);
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
    const float* c_prev = step > 0 ? At(reserve_.c, prev * N * H) : c0_;
    float* dgates_x = buffers_.dgates_x + offset;
    float* dgates_h = buffers_.dgates_h + offset;
    ForUnits(N, H, [&](int64_t n, Units units) {
      if (!row_steps_.TakesPart(n, time)) return Rest(n, offset, units);
      const bool first = row_steps_.IsFirst(n, time);
      const float* row_dy = dy + n * y_stride_;
      const float* h_prev = first ? h0_ + n * H : Y(prev) + n * y_stride_;
      float* dh = dh_ + n * H;
      switch (desc_.mode) {
        case Mode::kLstm:
          LstmBackward({gates + n * GH, c_prev + n * H, c + n * H, row_dy, dh, dc_ + n * H,
                        dgates_x + n * GH},
                       units);
          break;
        case Mode::kGru:
          GruBackward({gates + n * GH, hidden_n + n * H, h_prev, row_dy, dh, dgates_x + n * GH,
                       dgates_h + n * GH},
                      units);
          break;
        case Mode::kRnnTanh:
          RnnTanhBackward({Y(time) + n * y_stride_, row_dy, dh, dgates_x + n * GH}, units);
          break;
        case Mode::kRnnRelu:
          RnnReluBackward({Y(time) + n * y_stride_, row_dy, dh, dgates_x + n * GH}, units);
          break;
      }
      if (first) CopyGates(dgates_h + n * GH, units, buffers_.dgates_first + n * GH);
    });
    buffers_.h2h.Run(dgates_h, dh_);
  }

  // The gradients of a row's gates, where it rests; those of its states stay as they are.
  void Rest(int64_t n, int64_t offset, Units units) {
    const int64_t row = offset + n * desc_.gate_rows();
    for (float* dgates : {buffers_.dgates_x + row, buffers_.dgates_h + row}) {
      for (int64_t k = 0; k < desc_.gate_rows(); k += units.hidden) {
        std::fill(dgates + k + units.begin, dgates + k + units.end, 0.0f);
      }
    }
  }

  void CopyGates(const float* from, Units units, float* to) const {
    for (int64_t k = 0; k < desc_.gate_rows(); k += units.hidden) {
      std::copy(from + k + units.begin, from + k + units.end, to + k + units.begin);
    }
  }

  // dx, and the gradients of the input weights and both biases; initial: nothing to add to yet.
  void InputGradients(int64_t begin_time, int64_t steps, bool initial) {
    const int64_t GH = desc_.gate_rows(), I = desc_.input, rows = steps * desc_.batch;
    float* dx = dx_ + begin_time * desc_.batch * I;
    Gemm(rows, I, GH, {buffers_.dgates_x, GH}, {weights_.i2h_weight, I}, add_to_dx_ ? 1.0f : 0.0f,
         dx, I);
    InputWeightGradient(begin_time * desc_.batch, rows, initial);
    BiasGradient(buffers_.dgates_x, rows, initial, gradients_.i2h_bias);
    if (buffers_.dgates_h == buffers_.dgates_x) {
      std::copy_n(gradients_.i2h_bias, GH, gradients_.h2h_bias);
    } else {
      BiasGradient(buffers_.dgates_h, rows, initial, gradients_.h2h_bias);
    }
  }

  // The chunk's rows begin at row `begin` of x.
  void InputWeightGradient(int64_t begin, int64_t rows, bool initial) {
    const int64_t GH = desc_.gate_rows(), I = desc_.input;
    // A gradient of zero would not do where a row rests: its inputs may be NaN.
    const int64_t most = row_steps_.all() ? rows : buffers_.copy_rows;
    for (int64_t row = 0; row < rows; row += most) {
      const int64_t count = std::min(most, rows - row);
      const float* x = row_steps_.all() ? x_ + begin * I : CopyInputs(begin + row, count);
      Gemm(GH, I, count, {buffers_.dgates_x + row * GH, GH, Transpose::kYes}, {x, I},
           initial && row == 0 ? 0.0f : 1.0f, gradients_.i2h_weight, I);
    }
  }

  // Rows of x, with zeros in place of those that rest.
  const float* CopyInputs(int64_t begin, int64_t count) {
    const int64_t I = desc_.input, N = desc_.batch;
    for (int64_t row = begin; row < begin + count; ++row) {
      float* copy = buffers_.input_copy + (row - begin) * I;
      if (row_steps_.TakesPart(row % N, row / N)) {
        std::copy_n(x_ + row * I, I, copy);
      } else {
        std::fill_n(copy, I, 0.0f);
      }
    }
    return buffers_.input_copy;
  }

  void BiasGradient(const float* dgates, int64_t rows, bool initial, float* gradient) {
    const int64_t GH = desc_.gate_rows();
    const auto sum = [&](int64_t, Units units) {
      SumRows(dgates, rows, GH, units.begin, units.end, !initial, gradient);
    };
    ForUnits(1, GH, sum, rows);
  }

  // The recurrent weights saw the previous step's output, which is zero before the first step of a
  // row that is walked in reverse.
  void RecurrentGradients(int64_t first, int64_t end) {
    const int64_t GH = desc_.gate_rows(), H = desc_.hidden, N = desc_.batch;
    const int64_t later = std::max<int64_t>(first, 1);
    if (later == end) return;
    const int64_t skipped = walk_.Begin(later, end) - walk_.Begin(first, end);
    Gemm(GH, H, (end - later) * N, {buffers_.dgates_h + skipped * N * GH, GH, Transpose::kYes},
         {Y(walk_.Begin(later - 1, end - 1)), y_stride_}, end == walk_.steps ? 0.0f : 1.0f,
         gradients_.h2h_weight, H);
  }

  const LayerDesc& desc_;
  BackwardBuffers& buffers_;
  Parameters<const float> weights_;
  Parameters<float> gradients_;
  Walk walk_;
  RowSteps row_steps_;
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

}  // namespace

size_t BackwardWorkspaceBytes(const LayerDesc& desc) {
  ExpectCovered(desc);
  const ThreadScope threads;
  return BackwardBuffers(desc, nullptr).bytes;
}

void Backward(const LayerDesc& desc, const BackwardArgs& args) {
  ExpectCovered(desc);
  const ThreadScope threads;
  BackwardBuffers buffers(desc, args.workspace);
  for (int64_t d = 0; d < desc.directions; ++d) BackwardDirection(desc, args, &buffers, d).Run();
}

}  // namespace cpu
}  // namespace fastrnn
