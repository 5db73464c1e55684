#include <vector>

#include "forward_direction.h"
#include "persistent.h"
#include "persistent_kernels.h"

namespace fastrnn {
namespace cuda {
namespace {

template <class T>
ForwardKernel<T> FindKernel(Mode mode, const PersistentPlan& plan, bool tf32) {
  switch (mode) {
    case Mode::kLstm:
      return FindForwardKernel<LstmStep, T>(plan, tf32);
    case Mode::kGru:
      return FindForwardKernel<GruStep, T>(plan, tf32);
    case Mode::kRnnTanh:
      return FindForwardKernel<RnnStep<cell::TanhActivation>, T>(plan, tf32);
    case Mode::kRnnRelu:
      return FindForwardKernel<RnnStep<cell::ReluActivation>, T>(plan, tf32);
  }
  return nullptr;
}

// What the blocks of a launch exchange; it finds all of it zero.
template <class T>
struct ExchangeBuffers {
  unsigned* flags;
  T* exchanged;
  size_t bytes;

  // The first that is carved.
  ExchangeBuffers(const LayerDesc& desc, const PersistentPlan& plan, Carver* carver) {
    constexpr int kValues = kChunkBytesOfK / sizeof(T);
    const int chunks = static_cast<int>((desc.hidden + kValues - 1) / kValues);
    const size_t groups = static_cast<size_t>(plan.groups) * static_cast<size_t>(plan.directions);
    flags = carver->Take<unsigned>(groups * static_cast<size_t>(plan.blocks));
    exchanged = carver->Take<T>(groups * 2 * ExchangedValues(chunks, plan.batch_tiles, kValues));
    bytes = carver->used();
  }
};

// Stepwise's arrays are there as well, should the device refuse.
template <class T>
struct PersistentBuffers {
  ExchangeBuffers<T> exchange;
  ForwardBuffers forward;

  PersistentBuffers(const LayerDesc& desc, const PersistentPlan& plan, Carver* carver)
      : exchange(desc, plan, carver),
        forward(desc, carver, SumsInReserve<T>(desc), plan.directions) {}
};

template <class T>
class PersistentLayer {
 public:
  PersistentLayer(const LayerDesc& desc, const ForwardArgs& args, bool tf32,
                  const PersistentPlan& plan, Carver carver)
      : desc_(desc),
        plan_(plan),
        kernel_(FindKernel<T>(desc.mode, plan, tf32)),
        buffers_(desc, plan, &carver),
        stream_(static_cast<cudaStream_t>(args.stream)),
        blas_(desc.device_index, args.stream, buffers_.forward.blas, tf32) {
    for (int64_t d = 0; d < desc.directions; ++d) {
      directions_.emplace_back(desc, args, buffers_.forward, &blas_, d);
    }
    int resident = 0;
    FASTRNN_CUDA_TRY(MaxResidentBlocks(kernel_, kProductThreads, plan.shared_bytes, &resident));
    fits_ = static_cast<int64_t>(plan.blocks) * plan.groups * plan.directions <= resident;
  }

  void Run() {
    const Walk& walk = directions_[0].walk();
    for (int64_t d = 0; d < desc_.directions; d += plan_.directions) {
      for (int64_t first = 0; first < walk.steps; first = walk.End(first)) RunChunk(d, first);
    }
  }

 private:
  // The chunk of as many directions as are launched at once.
  void RunChunk(int64_t direction, int64_t first) {
    const int64_t last = directions_[0].walk().End(first) - 1;
    PersistentForwardArgs<T> args = {};
    const float* sums[kMaxDirections];
    for (int64_t i = 0; i < plan_.directions; ++i) {
      const ForwardDirection<T>& of = directions_[direction + i];
      sums[i] = of.Project(first);
      args.first_step[i] = of.StepOf(first, first, sums[i]);
      args.first_step[i].c_n = of.StepOf(last, first, sums[i]).c_n;
      args.h2h_weight[i] = of.h2h_weight();
      args.back[i] = of.walk().reverse;
    }
    args.steps = static_cast<int>(last + 1 - first);
    args.flags = buffers_.exchange.flags;
    args.exchanged = buffers_.exchange.exchanged;
    if (fits_ && LaunchChunk(args)) return;
    for (int64_t i = 0; i < plan_.directions; ++i) {
      directions_[direction + i].RunSteps(first, sums[i]);
    }
  }

  // False, and nothing is done, where the device has no room for the blocks: other work may have
  // taken it.
  bool LaunchChunk(PersistentForwardArgs<T> args) const {
    const dim3 grid(plan_.blocks, plan_.groups, plan_.directions);
    for (int launch = 0; launch < plan_.launches; ++launch) {
      args.first_row = launch * plan_.groups * plan_.batch_tiles * kTileBatch;
      FASTRNN_CUDA_TRY(
          cudaMemsetAsync(buffers_.exchange.flags, 0, buffers_.exchange.bytes, stream_));
      const cudaError_t status =
          LaunchCooperative(kernel_, grid, kProductThreads, plan_.shared_bytes, stream_, args);
      if (status == cudaErrorCooperativeLaunchTooLarge && launch == 0) {
        cudaGetLastError();  // It would otherwise be the next call's.
        return false;
      }
      FASTRNN_CUDA_TRY(status);
    }
    return true;
  }

  const LayerDesc& desc_;
  const PersistentPlan& plan_;
  ForwardKernel<T> kernel_;
  PersistentBuffers<T> buffers_;
  cudaStream_t stream_;
  Blas blas_;
  std::vector<ForwardDirection<T>> directions_;
  bool fits_;
};

}  // namespace

template <class T>
size_t PersistentForwardBytes(const LayerDesc& desc, const PersistentPlan& plan) {
  Carver carver(nullptr);
  PersistentBuffers<T>(desc, plan, &carver);
  return carver.used();
}

template <class T>
void PersistentForward(const LayerDesc& desc, const ForwardArgs& args, bool tf32,
                       const PersistentPlan& plan) {
  PersistentLayer<T>(desc, args, tf32, plan, Carver(args.workspace)).Run();
}

#define FASTRNN_INSTANTIATE(T)                                                                  \
  template size_t PersistentForwardBytes<T>(const LayerDesc& desc, const PersistentPlan& plan); \
  template void PersistentForward<T>(const LayerDesc& desc, const ForwardArgs& args, bool tf32, \
                                     const PersistentPlan& plan);
FASTRNN_INSTANTIATE(float)
FASTRNN_INSTANTIATE(Half)
FASTRNN_INSTANTIATE(Bfloat16)
#undef FASTRNN_INSTANTIATE

}  // namespace cuda
}  // namespace fastrnn
