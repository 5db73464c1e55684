// The CPU backend: float32 layers.
#include "../backend.h"

#include <cstring>
#include <optional>

#include "../error.h"
#include "threads.h"
#include "work.h"

namespace fastrnn {
namespace cpu {
namespace {

// oneDNN chooses its kernels for the number of threads at the time, so they are made in its scope.
class CpuLayer final : public LayerPlan {
 public:
  explicit CpuLayer(const LayerDesc& desc) : desc_(desc) {
    const ThreadScope threads(desc.threads);
    const int64_t H = desc.hidden, GH = desc.gate_rows();
    forward_.emplace(desc, GH, H, Transpose::kYes, false);
    Carver carver(nullptr);
    ForwardBuffers(desc, *forward_, &carver);
    forward_bytes_ = carver.used();
    if (!desc.reserve) return;
    backward_.emplace(desc, H, GH, Transpose::kNo, true);
    carver = Carver(nullptr);
    BackwardBuffers(desc, *backward_, &carver);
    backward_bytes_ = carver.used();
  }

  size_t WorkspaceBytes(Pass pass) const override {
    return pass == Pass::kForward ? forward_bytes_ : backward_bytes_;
  }

  std::string Reason(Pass pass) const override {
    const StepProduct& product = pass == Pass::kForward ? *forward_ : *backward_;
    return product.Reason() + ", up to " + std::to_string(desc_.threads) + " thread(s)";
  }

  void Forward(const ForwardArgs& args) const override {
    const ThreadScope threads(desc_.threads);
    Carver carver(args.workspace);
    const ForwardBuffers buffers(desc_, *forward_, &carver);
    for (int64_t d = 0; d < desc_.directions; ++d) {
      const Parameters<const float> weights(args.weights[d]);
      ForwardWork work(desc_, *forward_, weights, buffers);
      float* const c = StateOf<float>(desc_, args.cn, d);
      RunSteps<float, ForwardWork>({{desc_, args, ChunkRows(), {buffers.gates, c}, &work, d}});
    }
  }

  void Backward(const BackwardArgs& args) const override {
    const ThreadScope threads(desc_.threads);
    Carver carver(args.workspace);
    BackwardBuffers buffers(desc_, *backward_, &carver);
    const int64_t states = desc_.batch * desc_.hidden;
    for (int64_t d = 0; d < desc_.directions; ++d) {
      const Parameters<const float> weights(args.weights[d]);
      BackwardWork work(desc_, *backward_, weights.h2h_weight, buffers);
      buffers.arrays.dh = StateOf<float>(desc_, args.dh0, d);
      buffers.arrays.dc = StateOf<float>(desc_, args.dc0, d);
      work.Round(StateOf<const float>(desc_, args.dhn, d), states, buffers.arrays.dh);
      if (desc_.has_c()) {
        work.Round(StateOf<const float>(desc_, args.dcn, d), states, buffers.arrays.dc);
      }
      RunSteps(BackwardDirection<float, BackwardWork>(desc_, args, ChunkRows(), buffers.arrays,
                                                      &work, d));
    }
  }

 private:
  const LayerDesc desc_;
  std::optional<StepProduct> forward_, backward_;
  size_t forward_bytes_ = 0, backward_bytes_ = 0;
};

class HostMemory final : public Memory {
 public:
  explicit HostMemory(size_t bytes) : array_(new char[bytes]) { data_ = array_.get(); }

 private:
  std::unique_ptr<char[]> array_;
};

class CpuBackend final : public Backend {
 public:
  int Threads() const override { return cpu::Threads(); }

  std::unique_ptr<const LayerPlan> MakePlan(const LayerDesc& desc) const override {
    FASTRNN_EXPECTS(desc.dtype == DType::kFloat32,
                    std::string("dtype is ") + Name(desc.dtype) + ", expected float32 on the CPU");
    return std::make_unique<CpuLayer>(desc);
  }

  std::unique_ptr<Memory> Allocate(int, size_t bytes, void*) const override {
    return std::make_unique<HostMemory>(bytes);
  }
  void FillWithZeros(int, void* data, size_t bytes, void*) const override {
    std::memset(data, 0, bytes);
  }
  bool IsCapturing(int, void*) const override { return false; }
};

const CpuBackend backend;
const Registration registration(Device::kCpu, &backend);

}  // namespace
}  // namespace cpu
}  // namespace fastrnn
