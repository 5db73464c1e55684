#include <algorithm>
#include <vector>

#include "../stepwise/forward_work.h"
#include "persistent.h"
#include "persistent_kernels.h"
#include "persistent_launch.h"

namespace fastrnn {
namespace cuda {
namespace {

// With the stepwise algorithm's arrays, in case the device refuses a launch.
template <class T>
struct PersistentBuffers {
  ExchangeBuffers<T> exchange;
  ForwardBuffers forward;

  PersistentBuffers(const LayerDesc& desc, const PersistentPlan& plan, Carver* carver)
      : exchange(plan, desc.hidden, carver),
        forward(desc, carver, SumsInReserve<T>(desc), plan.directions, 1) {}
};

template <class T>
class PersistentLayer {
 public:
  PersistentLayer(const LayerDesc& desc, const ForwardArrays& args, bool tf32,
                  const PersistentPlan& plan, Carver carver)
      : desc_(desc),
        plan_(plan),
        kernel_(FindForwardKernel<T>(desc.mode, plan, tf32)),
        buffers_(desc, plan, &carver),
        stream_(static_cast<cudaStream_t>(args.stream)),
        blas_(desc.device_index, args.stream, buffers_.forward.blas[0], tf32),
        work_(&blas_, stream_, buffers_.forward.sums[0]) {
    for (int64_t d = 0; d < desc.directions; ++d) {
      directions_.emplace_back(desc, args, ForwardChunkRows(desc), buffers_.forward.arrays[d],
                               &work_, d);
    }
  }

  void Run() {
    const Walk& walk = directions_[0].walk();
    for (int64_t d = 0; d < desc_.directions; d += plan_.directions) {
      for (int64_t first = 0; first < walk.steps; first = walk.End(first)) RunChunk(d, first);
    }
  }

 private:
  // A chunk of the directions that are launched at once.
  void RunChunk(int64_t direction, int64_t first) {
    const float* sums[kMaxDirections];
    for (int64_t i = 0; i < plan_.directions; ++i) {
      sums[i] = directions_[direction + i].Project(first);
    }
    const int64_t end = directions_[0].walk().End(first);
    for (int64_t begin = first; begin < end; begin += kLaunchSteps) {
      RunSteps(direction, {first, begin, std::min(begin + kLaunchSteps, end)}, sums);
    }
  }

  void RunSteps(int64_t direction, const Stretch& steps, const float* const* sums) {
    PersistentForwardArgs<T> args = {};
    for (int64_t i = 0; i < plan_.directions; ++i) {
      const CudaForwardDirection<T>& of = directions_[direction + i];
      args.first_step[i] = of.StepOf(steps.begin, steps.chunk, sums[i]);
      args.first_step[i].c_n = of.StepOf(steps.end - 1, steps.chunk, sums[i]).c_n;
      const ForwardStep<T>& step = args.first_step[i];
      const int64_t rows = of.walk().reverse ? -step.rows : step.rows;
      args.strides[i] = {rows * desc_.hidden, rows * desc_.gate_rows(), rows * step.y_stride};
      args.h2h_weight[i] = of.weights().h2h_weight;
      args.back[i] = of.walk().reverse;
    }
    args.steps = static_cast<int>(steps.end - steps.begin);
    const int64_t done =
        LaunchForRows(desc_.batch, kernel_, plan_, buffers_.exchange, args, stream_);
    if (done == desc_.batch) return;
    ExpectChoiceIsFree(desc_, plan_);
    for (int64_t i = 0; i < plan_.directions; ++i) {
      for (int64_t index = steps.begin; index < steps.end; ++index) {
        directions_[direction + i].RunStep(index, steps.chunk, sums[i], done);
      }
    }
  }

  const LayerDesc& desc_;
  const PersistentPlan& plan_;
  ForwardKernel<T> kernel_;
  PersistentBuffers<T> buffers_;
  cudaStream_t stream_;
  Blas blas_;
  ForwardWork<T> work_;
  std::vector<CudaForwardDirection<T>> directions_;
};

}  // namespace

template <class T>
size_t PersistentForward<T>::Bytes(const LayerDesc& desc, const PersistentPlan& plan) {
  Carver carver(nullptr);
  PersistentBuffers<T>(desc, plan, &carver);
  return carver.used();
}

template <class T>
void PersistentForward<T>::Run(const LayerDesc& desc, const ForwardArrays& args, bool tf32,
                               const PersistentPlan& plan) {
  PersistentLayer<T>(desc, args, tf32, plan, Carver(args.workspace)).Run();
}

template <class T>
int PersistentForward<T>::ResidentBlocks(const LayerDesc& desc, bool tf32,
                                         const PersistentPlan& plan) {
  return cuda::ResidentBlocks(desc.device_index, FindForwardKernel<T>(desc.mode, plan, tf32), plan);
}

#define FASTRNN_INSTANTIATE(value, T) template struct PersistentForward<T>;
FASTRNN_CUDA_TYPES(FASTRNN_INSTANTIATE)

}  // namespace cuda
}  // namespace fastrnn
