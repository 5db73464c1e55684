#include "stepwise.h"

namespace fastrnn {
namespace cuda {
namespace {

// In float32 the products of a chunk go where its activated gates will stand.
template <class T>
bool SumsInReserve(const LayerDesc& desc) {
  return kDType<T> == DType::kFloat32 && GatesInReserve(desc);
}

struct ForwardBuffers {
  float* input_sum = nullptr;  // [chunk rows, G*H], unless the reserve takes it
  float* hidden_sum;           // [N, G*H]
  float* c = nullptr;          // [N, H], unless the reserve takes it
  char* blas;
  size_t bytes;

  ForwardBuffers(const LayerDesc& desc, void* workspace, bool sums_in_reserve) {
    Carver carver(workspace);
    const int64_t max_rows = MaxChunkRows(desc, sizeof(float));
    const int64_t rows = Walk(desc, 0, max_rows).chunk_steps * desc.batch;
    if (!sums_in_reserve) input_sum = carver.Take<float>(rows * desc.gate_rows());
    hidden_sum = carver.Take<float>(desc.batch * desc.gate_rows());
    if (desc.has_cell() && !desc.reserve) c = carver.Take<float>(desc.batch * desc.hidden);
    blas = carver.Take<char>(Blas::WorkspaceBytes());
    bytes = carver.used();
  }
};

template <class T>
class ForwardDirection {
 public:
  ForwardDirection(const LayerDesc& desc, const ForwardArgs& args, const ForwardBuffers& buffers,
                   Blas* blas, int64_t direction)
      : desc_(desc),
        buffers_(buffers),
        blas_(*blas),
        stream_(static_cast<cudaStream_t>(args.stream)),
        lengths_(args.lengths),
        weights_(args.weights[direction]),
        walk_(desc, direction, MaxChunkRows(desc, sizeof(float))),
        reserve_(desc, args.reserve, direction),
        x_(static_cast<const T*>(args.x)),
        c0_(StateOf<const T>(desc, args.c0, direction)),
        y_(static_cast<T*>(args.y) + direction * desc.hidden),
        cn_(StateOf<T>(desc, args.cn, direction)),
        h_prev_(StateOf<const T>(desc, args.h0, direction)),
        h_(StateOf<T>(desc, args.hn, direction)) {}

  void Run() {
    const int64_t N = desc_.batch, I = desc_.input, GH = desc_.gate_rows();
    for (int64_t first = 0; first < walk_.steps; first = walk_.End(first)) {
      const int64_t end = walk_.End(first);
      const int64_t begin_time = walk_.Begin(first, end);
      float* sums = InputSums(begin_time);
      blas_.Gemm((end - first) * N, GH, I, Factor(x_ + begin_time * N * I, I),
                 Transposed(weights_.i2h_weight, I), 0.0f, Into(sums, GH));
      for (int64_t step = first; step < end; ++step) {
        Step(step, sums + (walk_.Time(step) - begin_time) * N * GH);
      }
    }
  }

 private:
  float* InputSums(int64_t begin_time) const {
    if constexpr (std::is_same<T, float>::value) {
      if (reserve_.gates != nullptr) {
        return reserve_.gates + begin_time * desc_.batch * desc_.gate_rows();
      }
    }
    return buffers_.input_sum;
  }

  void Step(int64_t index, const float* input_sum) {
    const int64_t N = desc_.batch, H = desc_.hidden, GH = desc_.gate_rows();
    blas_.Gemm(N, GH, H, Factor(h_prev_, H), Transposed(weights_.h2h_weight, H), 0.0f,
               Into(buffers_.hidden_sum, GH));
    const int64_t time = walk_.Time(index);
    ForwardStep<T> step = {};
    step.rows = static_cast<int>(N);
    step.hidden = static_cast<int>(H);
    step.time = time;
    step.lengths = lengths_;
    step.i2h_bias = weights_.i2h_bias;
    step.h2h_bias = weights_.h2h_bias;
    step.input_sum = input_sum;
    step.hidden_sum = buffers_.hidden_sum;
    step.h_prev = h_prev_;
    step.c_0 = index == 0 ? c0_ : nullptr;
    step.c_prev = c_prev_;
    step.gates = At(reserve_.gates, time * N * GH);
    step.hidden_n = At(reserve_.hidden_n, time * N * H);
    step.h = h_;
    step.c = reserve_.c != nullptr ? reserve_.c + time * N * H : buffers_.c;
    step.c_n = index == walk_.steps - 1 ? cn_ : nullptr;
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
  const int32_t* lengths_;
  Parameters<const T> weights_;
  Walk walk_;
  Reserve<T> reserve_;
  const T* x_;
  const T* c0_;
  T* y_;  // the direction's first column
  T* cn_;
  const T* h_prev_;
  T* h_;  // hn, running
  const float* c_prev_ = nullptr;
};

}  // namespace

template <class T>
size_t StepwiseForwardBytes(const LayerDesc& desc) {
  return ForwardBuffers(desc, nullptr, SumsInReserve<T>(desc)).bytes;
}

template <class T>
void StepwiseForward(const LayerDesc& desc, const ForwardArgs& args, bool tf32) {
  const ForwardBuffers buffers(desc, args.workspace, SumsInReserve<T>(desc));
  Blas blas(desc.device_index, args.stream, buffers.blas, tf32);
  for (int64_t d = 0; d < desc.directions; ++d) {
    ForwardDirection<T>(desc, args, buffers, &blas, d).Run();
  }
}

#define FASTRNN_INSTANTIATE(T)                                    \
  template size_t StepwiseForwardBytes<T>(const LayerDesc& desc); \
  template void StepwiseForward<T>(const LayerDesc& desc, const ForwardArgs& args, bool tf32);
FASTRNN_INSTANTIATE(float)
FASTRNN_INSTANTIATE(Half)
FASTRNN_INSTANTIATE(Bfloat16)
#undef FASTRNN_INSTANTIATE

}  // namespace cuda
}  // namespace fastrnn
