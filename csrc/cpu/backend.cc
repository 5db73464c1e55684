// The CPU backend.
#include "../backend.h"

#include <cstring>
#include <optional>
#include <type_traits>
#include <vector>

#include "../error.h"
#include "rounded_work.h"
#include "threads.h"
#include "work.h"

namespace fastrnn {
namespace cpu {
namespace {

// Multiplications of a pass that pay for a parallel region: two parts of a product.
constexpr int64_t kMinTeamWork = 1 << 21;

// T is the layer's type.
template <class T>
class CpuLayer final : public LayerPlan {
  template <class Exact, class Rounded>
  using Choice = std::conditional_t<kHoldsSums<T>, Exact, Rounded>;
  using Sum = Accumulator<T>;
  using ForwardMemory = Choice<ForwardBuffers<Sum>, RoundedForwardBuffers<T>>;
  using BackwardMemory = Choice<BackwardBuffers<Sum>, RoundedBackwardBuffers<T>>;
  using OfForward = Choice<ForwardWork<Sum>, RoundedForwardWork<T>>;
  using OfBackward = Choice<BackwardWork<Sum>, RoundedBackwardWork<T>>;

 public:
  explicit CpuLayer(const LayerDesc& desc) : desc_(desc), split_(Split::Of(desc)) {
    const ThreadScope alone(1);  // for which oneDNN chooses its kernels
    const int64_t H = desc.hidden, P = desc.outputs(), GH = desc.gate_rows();
    forward_.emplace(
        StepProducts<Sum>{{desc, split_, GH, P, Transpose::kYes, false}, std::nullopt});
    if (desc.projected()) forward_->h2r.emplace(desc, split_, P, H, Transpose::kYes, false);
    Carver carver(nullptr);
    ForwardMemory(desc, *forward_, &carver);
    forward_bytes_ = carver.used();
    if (!desc.reserve) return;
    backward_.emplace(StepProducts<Sum>{{desc, split_, P, GH, Transpose::kNo, true}, std::nullopt});
    if (desc.projected()) backward_->h2r.emplace(desc, split_, H, P, Transpose::kNo, false);
    carver = Carver(nullptr);
    BackwardMemory(desc, *backward_, &carver);
    backward_bytes_ = carver.used();
  }

  size_t WorkspaceBytes(Pass pass) const override {
    return pass == Pass::kForward ? forward_bytes_ : backward_bytes_;
  }

  std::string Reason(Pass pass) const override {
    return (pass == Pass::kForward ? forward_ : backward_)->h2h.Reason();
  }

  void Forward(const ForwardArrays& args) const override {
    RunOnThreads(desc_.threads, args.in_openmp && IsWorthATeam(), [&] {
      Carver carver(args.workspace);
      const ForwardMemory buffers(desc_, *forward_, &carver);
      for (int64_t d = 0; d < desc_.directions; ++d) ForwardOne(args, buffers, d);
    });
  }

  void Backward(const BackwardArrays& args) const override {
    RunOnThreads(desc_.threads, args.in_openmp && IsWorthATeam(), [&] {
      Carver carver(args.workspace);
      BackwardMemory buffers(desc_, *backward_, &carver);
      for (int64_t d = 0; d < desc_.directions; ++d) BackwardOne(args, &buffers, d);
    });
  }

 private:
  // Whether a pass has enough work to share.
  bool IsWorthATeam() const {
    const int64_t weights = desc_.gate_rows() * (desc_.outputs() + desc_.input);
    return desc_.rows() * weights >= kMinTeamWork;
  }

  void ForwardOne(const ForwardArrays& args, const ForwardMemory& buffers, int64_t d) const {
    const Weights& weights = args.weights[d];
    buffers.SumBiases(desc_, Parameters<const T>(weights));
    forward_->Load(weights, buffers.products);
    std::vector<OfForward> works;
    for (int64_t block = 0; block < split_.blocks; ++block) {
      const Rows rows = split_.Block(desc_, block);
      works.emplace_back(desc_,
                         BlockProducts<Sum>(*forward_, weights, buffers.products, block, rows),
                         buffers, rows, KeyOf(args.seed));
    }
    const ForwardDirection<T, OfForward> direction(desc_, args, ChunkRows(desc_),
                                                   buffers.Arrays(desc_, args, d), &works[0], d);
    const Walk& walk = direction.walk();
    for (int64_t first = 0; first < walk.steps; first = walk.End(first)) {
      const Sum* const sums = direction.Project(first);
      ForBlocks([&](int64_t block) {
        const Rows rows = split_.Block(desc_, block);
        for (int64_t index = first; index < walk.End(first); ++index) {
          direction.RunStep(index, first, sums, rows, &works[static_cast<size_t>(block)]);
        }
      });
    }
  }

  void BackwardOne(const BackwardArrays& args, BackwardMemory* buffers, int64_t d) const {
    const Weights& weights = args.weights[d];
    backward_->Load(weights, buffers->products);
    std::vector<OfBackward> works;
    for (int64_t block = 0; block < split_.blocks; ++block) {
      const Rows rows = split_.Block(desc_, block);
      BlockProducts<Sum> products(*backward_, weights, buffers->products, block, rows);
      if constexpr (kHoldsSums<T>) {
        works.emplace_back(desc_, std::move(products), KeyOf(args.seed));
      } else {
        works.emplace_back(desc_, std::move(products), *buffers, rows, KeyOf(args.seed));
      }
    }
    buffers->Begin(desc_, args, d);
    using Direction = BackwardDirection<T, OfBackward>;
    RunChunks(Direction(desc_, args, ChunkRows(desc_), buffers->arrays, &works[0], d),
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
  std::optional<StepProducts<Sum>> forward_, backward_;
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
    switch (desc.dtype) {
      case DType::kFloat32:
        return std::make_unique<CpuLayer<float>>(desc);
      case DType::kFloat64:
        return std::make_unique<CpuLayer<double>>(desc);
      case DType::kFloat16:
        return std::make_unique<CpuLayer<Half>>(desc);
      case DType::kBfloat16:
        return std::make_unique<CpuLayer<Bfloat16>>(desc);
    }
    throw InvalidArgument("the CPU backend has no such dtype", __FILE__, __LINE__);
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
