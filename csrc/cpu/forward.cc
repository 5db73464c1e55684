#include "layer.h"

namespace fastrnn {
namespace cpu {
namespace {

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
        row_steps_(args.lengths, walk_),
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
      if (!row_steps_.TakesPart(n, time)) {
        std::fill(row_y + units.begin, row_y + units.end, 0.0f);
        if (c != c_prev_) {
          std::copy(c_prev_ + n * H + units.begin, c_prev_ + n * H + units.end,
                    c + n * H + units.begin);
        }
        return;
      }
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
  RowSteps row_steps_;
  Reserve<float> reserve_;
  const float* x_;
  float* y_;             // the direction's first column
  float* h_;             // [N, H], running
  const float* c_prev_;  // [N, H]
  float* cn_;
};

}  // namespace

// The number of threads decides over oneDNN's buffers, so sizes are asked for under the same
// number.
size_t ForwardWorkspaceBytes(const LayerDesc& desc) {
  ExpectCovered(desc);
  const ThreadScope threads;
  return ForwardBuffers(desc, nullptr).bytes;
}

void Forward(const LayerDesc& desc, const ForwardArgs& args) {
  ExpectCovered(desc);
  const ThreadScope threads;
  ForwardBuffers buffers(desc, args.workspace);
  for (int64_t d = 0; d < desc.directions; ++d) ForwardDirection(desc, args, &buffers, d).Run();
}

}  // namespace cpu
}  // namespace fastrnn
