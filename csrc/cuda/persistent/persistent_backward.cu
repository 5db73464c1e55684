#include <algorithm>
#include <vector>

#include "../stepwise/backward_work.h"
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
  std::vector<BackwardBuffers<T>> directions;

  PersistentBuffers(const LayerDesc& desc, const PersistentPlan& plan, Carver* carver)
      : exchange(plan, desc.gate_rows(), carver) {
    for (int d = 0; d < plan.directions; ++d) directions.emplace_back(desc, carver);
  }
};

template <class T>
class PersistentLayer {
 public:
  PersistentLayer(const LayerDesc& desc, const BackwardArrays& args, bool tf32,
                  const PersistentPlan& plan, Carver carver)
      : desc_(desc),
        buffers_(desc, plan, &carver),
        plan_(plan),
        kernel_(FindBackwardKernel<T>(desc.mode, plan, tf32)),
        stream_(static_cast<cudaStream_t>(args.stream)),
        blas_(desc.device_index, args.stream, buffers_.directions[0].blas, tf32),
        work_(&blas_, stream_, buffers_.directions[0].partial) {
    for (int64_t d = 0; d < desc.directions; ++d) {
      const auto& buffers = buffers_.directions[static_cast<size_t>(d % plan_.directions)];
      directions_.emplace_back(desc, args, BackwardChunkRows(desc), buffers.arrays, &work_, d);
    }
  }

  void Run() {
    const Walk& walk = directions_[0].walk();
    const size_t at_once = static_cast<size_t>(plan_.directions);
    for (size_t d = 0; d < directions_.size(); d += at_once) {
      for (size_t i = d; i < d + at_once; ++i) directions_[i].Begin();
      for (int64_t first = walk.LastChunk(); first >= 0; first -= walk.chunk_steps) {
        RunChunk(d, first);
        for (size_t i = d; i < d + at_once; ++i) directions_[i].SumChunk(first);
      }
      for (size_t i = d; i < d + at_once; ++i) directions_[i].End();
    }
  }

 private:
  // A chunk of the directions that are launched at once, from its last steps on.
  void RunChunk(size_t direction, int64_t first) {
    for (int64_t end = directions_[0].walk().End(first); end > first; end -= kLaunchSteps) {
      RunSteps(direction, {first, std::max(end - kLaunchSteps, first), end});
    }
  }

  void RunSteps(size_t direction, const Stretch& steps) {
    PersistentBackwardArgs<T> args = {};
    for (int i = 0; i < plan_.directions; ++i) {
      const CudaBackwardDirection<T>& of = directions_[direction + static_cast<size_t>(i)];
      args.last_step[i] = of.StepOf(steps.end - 1, steps.chunk);
      const BackwardStep<T> first_step = of.StepOf(steps.begin, steps.chunk);
      args.last_step[i].c_0 = first_step.c_0;
      args.last_step[i].dc_0 = first_step.dc_0;
      args.h2h_weight[i] = of.weights().h2h_weight;
      args.back[i] = of.walk().reverse;
    }
    args.steps = static_cast<int>(steps.end - steps.begin);
    args.sums_flags = buffers_.exchange.sums_flags;
    args.sums = buffers_.exchange.sums;
    const int64_t done =
        LaunchForRows(desc_.batch, kernel_, plan_, buffers_.exchange, args, stream_);
    if (done == desc_.batch) return;
    ExpectChoiceIsFree(desc_, plan_);
    for (int i = 0; i < plan_.directions; ++i) {
      for (int64_t index = steps.end - 1; index >= steps.begin; --index) {
        directions_[direction + static_cast<size_t>(i)].RunStep(index, steps.chunk, done);
      }
    }
  }

  const LayerDesc& desc_;
  PersistentBuffers<T> buffers_;
  const PersistentPlan& plan_;
  BackwardKernel<T> kernel_;
  cudaStream_t stream_;
  Blas blas_;
  BackwardWork<T> work_;
  std::vector<CudaBackwardDirection<T>> directions_;
};

}  // namespace

template <class T>
size_t PersistentBackward<T>::Bytes(const LayerDesc& desc, const PersistentPlan& plan) {
  Carver carver(nullptr);
  PersistentBuffers<T>(desc, plan, &carver);
  return carver.used();
}

template <class T>
void PersistentBackward<T>::Run(const LayerDesc& desc, const BackwardArrays& args, bool tf32,
                                const PersistentPlan& plan) {
  PersistentLayer<T>(desc, args, tf32, plan, Carver(args.workspace)).Run();
}

template <class T>
int PersistentBackward<T>::ResidentBlocks(const LayerDesc& desc, bool tf32,
                                          const PersistentPlan& plan) {
  return cuda::ResidentBlocks(desc.device_index, FindBackwardKernel<T>(desc.mode, plan, tf32),
                              plan);
}

#define FASTRNN_INSTANTIATE(value, T) template struct PersistentBackward<T>;
FASTRNN_CUDA_TYPES(FASTRNN_INSTANTIATE)

}  // namespace cuda
}  // namespace fastrnn
