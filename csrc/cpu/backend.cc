// The CPU backend: float32 and float64 layers.
#include "../backend.h"

#include <cstring>
#include <optional>
#include <vector>

#include "../error.h"
#include "threads.h"
#include "work.h"

namespace fastrnn {
namespace cpu {
namespace {

// T is the layer's type.
template <class T>
class CpuLayer final : public LayerPlan {
 public:
  explicit CpuLayer(const LayerDesc& desc) : desc_(desc), split_(Split::Of(desc)) {
    const ThreadScope alone(1);  // for which oneDNN chooses its kernels
    const int64_t H = desc.hidden, P = desc.outputs(), GH = desc.gate_rows();
    forward_.emplace(StepProducts<T>{{desc, split_, GH, P, Transpose::kYes, false}, std::nullopt});
    if (desc.projected()) forward_->h2r.emplace(desc, split_, P, H, Transpose::kYes, false);
    Carver carver(nullptr);
    ForwardBuffers<T>(desc, *forward_, &carver);
    forward_bytes_ = carver.used();
    if (!desc.reserve) return;
    backward_.emplace(StepProducts<T>{{desc, split_, P, GH, Transpose::kNo, true}, std::nullopt});
    if (desc.projected()) backward_->h2r.emplace(desc, split_, H, P, Transpose::kNo, false);
    carver = Carver(nullptr);
    BackwardBuffers<T>(desc, *backward_, &carver);
    backward_bytes_ = carver.used();
  }

  size_t WorkspaceBytes(Pass pass) const override {
    return pass == Pass::kForward ? forward_bytes_ : backward_bytes_;
  }

  std::string Reason(Pass pass) const override {
    return (pass == Pass::kForward ? forward_ : backward_)->h2h.Reason();
  }

  void Forward(const ForwardArrays& args) const override {
    const ThreadScope threads(desc_.threads);
    Carver carver(args.workspace);
    const ForwardBuffers<T> buffers(desc_, *forward_, &carver);
    for (int64_t d = 0; d < desc_.directions; ++d) ForwardOne(args, buffers, d);
  }

  void Backward(const BackwardArrays& args) const override {
    const ThreadScope threads(desc_.threads);
    Carver carver(args.workspace);
    BackwardBuffers<T> buffers(desc_, *backward_, &carver);
    for (int64_t d = 0; d < desc_.directions; ++d) BackwardOne(args, &buffers, d);
  }

 private:
  void ForwardOne(const ForwardArrays& args, const ForwardBuffers<T>& buffers, int64_t d) const {
    const Parameters<const T> weights(args.weights[d]);
    buffers.SumBiases(desc_, weights);
    forward_->Load(weights, buffers.products);
    std::vector<ForwardWork<T>> works;
    for (int64_t block = 0; block < split_.blocks; ++block) {
      const Rows rows = split_.Block(desc_, block);
      works.emplace_back(desc_, BlockProducts<T>(*forward_, weights, buffers.products, block, rows),
                         buffers, rows, KeyOf(args.seed));
    }
    const ForwardDirection<T, ForwardWork<T>> direction(
        desc_, args, ChunkRows(),
        {buffers.gates, CellOf<T>(desc_, args.cn, d), buffers.r, buffers.noise}, &works[0], d);
    const Walk& walk = direction.walk();
    for (int64_t first = 0; first < walk.steps; first = walk.End(first)) {
      const T* const sums = direction.Project(first);
      ForBlocks([&](int64_t block) {
        const Rows rows = split_.Block(desc_, block);
        for (int64_t index = first; index < walk.End(first); ++index) {
          direction.RunStep(index, first, sums, rows, &works[static_cast<size_t>(block)]);
        }
      });
    }
  }

  void BackwardOne(const BackwardArrays& args, BackwardBuffers<T>* buffers, int64_t d) const {
    const Parameters<const T> weights(args.weights[d]);
    backward_->Load(weights, buffers->products);
    std::vector<BackwardWork<T>> works;
    for (int64_t block = 0; block < split_.blocks; ++block) {
      works.emplace_back(desc_,
                         BlockProducts<T>(*backward_, weights, buffers->products, block,
                                          split_.Block(desc_, block)),
                         KeyOf(args.seed));
    }
    buffers->arrays.dh = HiddenOf<T>(desc_, args.dh0, d);
    buffers->arrays.dc = CellOf<T>(desc_, args.dc0, d);
    works[0].Round(HiddenOf<const T>(desc_, args.dhn, d), desc_.batch * desc_.outputs(),
                   buffers->arrays.dh);
    if (desc_.has_c()) {
      works[0].Round(CellOf<const T>(desc_, args.dcn, d), desc_.batch * desc_.hidden,
                     buffers->arrays.dc);
    }
    using Direction = BackwardDirection<T, BackwardWork<T>>;
    RunChunks(Direction(desc_, args, ChunkRows(), buffers->arrays, &works[0], d),
              [&](const Direction& direction, int64_t first) {
                ForBlocks([&](int64_t block) {
                  const Rows rows = split_.Block(desc_, block);
                  for (int64_t index = direction.walk().End(first) - 1; index >= first; --index) {
                    direction.RunStep(index, first, rows, &works[static_cast<size_t>(block)]);
                  }
                });
              });
  }

  // Calls body(block) for each block of rows.
  template <class Body>
  void ForBlocks(Body body) const {
    if (split_.blocks > 1) return ParallelFor(split_.blocks, body);
    const ThreadScope threads(split_.parts > 1 ? desc_.threads : 1);
    body(0);
  }

  const LayerDesc desc_;
  const Split split_;
  std::optional<StepProducts<T>> forward_, backward_;
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
    if (desc.dtype == DType::kFloat64) return std::make_unique<CpuLayer<double>>(desc);
    FASTRNN_EXPECTS(desc.dtype == DType::kFloat32, std::string("dtype is ") + Name(desc.dtype) +
                                                       ", expected float32 or float64 on the CPU");
    return std::make_unique<CpuLayer<float>>(desc);
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
