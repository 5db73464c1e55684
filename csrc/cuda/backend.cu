// The CUDA backend: chooses an algorithm for each pass of a layer.
#include <limits>
#include <map>
#include <mutex>

#include "../error.h"
#include "devices.h"
#include "persistent/persistent.h"
#include "plan.h"
#include "runtime/device_scope.h"
#include "runtime/memory.h"
#include "runtime/runtime.h"
#include "stepwise/stepwise.h"

namespace fastrnn {
namespace cuda {
namespace {

constexpr int kOldestCapability = 70;
constexpr int kBfloat16Capability = 80;

// cuBLAS and the kernels count rows and columns in ints. The rows of the weights, G * H, need no
// check: so many weights would overflow 64 bits.
void ExpectKernelSizes(const LayerDesc& desc) {
  constexpr int64_t kMost = std::numeric_limits<int>::max();
  FASTRNN_EXPECTS(desc.input <= kMost, "input size is " + std::to_string(desc.input) +
                                           ", expected at most " + std::to_string(kMost) +
                                           " on CUDA");
}

void ExpectCapability(const LayerDesc& desc, int capability) {
  const bool bfloat16 = desc.dtype == DType::kBfloat16;
  const int needed = bfloat16 ? kBfloat16Capability : kOldestCapability;
  if (capability >= needed) return;
  const auto text = [](int version) {
    return std::to_string(version / 10) + "." + std::to_string(version % 10);
  };
  cudaDeviceProp properties;
  FASTRNN_CUDA_TRY(cudaGetDeviceProperties(&properties, desc.device_index));
  throw InvalidArgument("CUDA device " + std::to_string(desc.device_index) + " (" +
                            properties.name + ") has compute capability " + text(capability) +
                            ", expected " + text(needed) + " or higher" +
                            (bfloat16 ? " for bfloat16" : ""),
                        __FILE__, __LINE__);
}

// Calls body with a value of the layer's type.
template <class Body>
auto ForType(DType dtype, Body body) {
  switch (dtype) {
#define FASTRNN_CASE(value, T) \
  case DType::value:           \
    return body(T());
    FASTRNN_CUDA_TYPES(FASTRNN_CASE)
#undef FASTRNN_CASE
    default:
      break;
  }
  throw InvalidArgument("the CUDA backend has no such dtype", __FILE__, __LINE__);
}

// Never launched. The driver tells how many clusters of its blocks fit, and what it was compiled
// for.
__global__ void AskedAboutKernel() {}

int ResidentBlocks(Pass pass, const LayerDesc& desc, bool tf32, const PersistentPlan& plan) {
  return ForType(desc.dtype, [&](auto type) {
    using T = decltype(type);
    return pass == Pass::kForward ? PersistentForward<T>::ResidentBlocks(desc, tf32, plan)
                                  : PersistentBackward<T>::ResidentBlocks(desc, tf32, plan);
  });
}

// Limits the grid by occupancy: if the device, which is current, holds fewer blocks of the chosen
// kernel at once than the plan has, it chooses again with that limit. This ends, because the limit
// is lower every time.
Choice ChooseWhatFits(Pass pass, const LayerDesc& desc, bool tf32, DeviceFacts facts) {
  for (;;) {
    const Choice choice = Choose(pass, desc, tf32, facts);
    if (!choice.persistent) return choice;
    const int resident = ResidentBlocks(pass, desc, tf32, choice.plan);
    if (choice.plan.grid_blocks() <= resident) return choice;
    (choice.plan.cluster() > 1 ? facts.cluster_multiprocessors : facts.resident_blocks) = resident;
  }
}

// Facts that take the driver a while, and do not change.
struct LastingFacts {
  int code_capability = 0;
  int cluster_multiprocessors = 0;
};

LastingFacts AskLastingFacts(int device, int capability, size_t shared_bytes) {
  const DeviceScope scope(device);
  LastingFacts facts;
  FASTRNN_CUDA_TRY(CompiledFor(AskedAboutKernel, &facts.code_capability));
  if (capability < 90) return facts;
  const cudaError_t status = MaxResidentBlocks(AskedAboutKernel, kProductThreads, shared_bytes,
                                               &facts.cluster_multiprocessors, kCluster);
  if (status != cudaSuccess) {
    // For example on a part of a GPU that is too small for a cluster. Layers run without them.
    cudaGetLastError();
    facts.cluster_multiprocessors = 0;
  }
  return facts;
}

LastingFacts LastingFactsOf(int device, int capability, size_t shared_bytes) {
  static std::mutex mutex;
  static std::map<int, LastingFacts> known;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = known.find(device);
  if (found != known.end()) return found->second;
  return known[device] = AskLastingFacts(device, capability, shared_bytes);
}

DeviceFacts FactsOf(int device) {
  const auto attribute = [device](cudaDeviceAttr name) {
    int value = 0;
    FASTRNN_CUDA_TRY(cudaDeviceGetAttribute(&value, name, device));
    return value;
  };
  DeviceFacts facts;
  facts.capability = 10 * attribute(cudaDevAttrComputeCapabilityMajor) +
                     attribute(cudaDevAttrComputeCapabilityMinor);
  facts.multiprocessors = attribute(cudaDevAttrMultiProcessorCount);
  facts.shared_bytes = static_cast<size_t>(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin));
  facts.l2_bytes = static_cast<size_t>(attribute(cudaDevAttrL2CacheSize));
  facts.cooperative = attribute(cudaDevAttrCooperativeLaunch) != 0;
  const LastingFacts lasting = LastingFactsOf(device, facts.capability, facts.shared_bytes);
  facts.code_capability = lasting.code_capability;
  facts.cluster_multiprocessors = lasting.cluster_multiprocessors;
  return facts;
}

Machine QueryMachine() {
  Machine result;
  try {
    FASTRNN_CUDA_TRY(cudaRuntimeGetVersion(&result.runtime_version));
    FASTRNN_CUDA_TRY(cudaDriverGetVersion(&result.driver_version));
    int count = 0;
    FASTRNN_CUDA_TRY(cudaGetDeviceCount(&count));
    for (int i = 0; i < count; ++i) {
      cudaDeviceProp properties;
      FASTRNN_CUDA_TRY(cudaGetDeviceProperties(&properties, i));
      result.devices.push_back({properties.name, properties.major, properties.minor,
                                static_cast<int64_t>(properties.totalGlobalMem),
                                properties.multiProcessorCount});
    }
  } catch (const LibraryError& e) {
    result.devices.clear();
    result.error = e.what();
  }
  return result;
}

// ---- layers -------------------------------------------------------------------------------------

template <class T>
class CudaLayer final : public LayerPlan {
 public:
  CudaLayer(const LayerDesc& desc, bool tf32, const DeviceFacts& facts)
      : desc_(desc), tf32_(tf32), forward_(ChooseWhatFits(Pass::kForward, desc, tf32, facts)) {
    forward_bytes_ = forward_.persistent ? PersistentForward<T>::Bytes(desc, forward_.plan)
                                         : StepwiseForward<T>::Bytes(desc);
    if (!desc.reserve) return;
    backward_ = ChooseWhatFits(Pass::kBackward, desc, tf32, facts);
    backward_bytes_ = backward_.persistent ? PersistentBackward<T>::Bytes(desc, backward_.plan)
                                           : StepwiseBackward<T>::Bytes(desc);
  }

  size_t WorkspaceBytes(Pass pass) const override {
    return pass == Pass::kForward ? forward_bytes_ : backward_bytes_;
  }

  std::string Reason(Pass pass) const override {
    const Choice& choice = pass == Pass::kForward ? forward_ : backward_;
    return std::string(choice.persistent ? "persistent: " : "stepwise: ") + choice.reason;
  }

  void Forward(const ForwardArrays& args) const override {
    const DeviceScope device(desc_.device_index);
    if (forward_.persistent) return PersistentForward<T>::Run(desc_, args, tf32_, forward_.plan);
    StepwiseForward<T>::Run(desc_, args, tf32_);
  }

  void Backward(const BackwardArrays& args) const override {
    const DeviceScope device(desc_.device_index);
    if (backward_.persistent) return PersistentBackward<T>::Run(desc_, args, tf32_, backward_.plan);
    StepwiseBackward<T>::Run(desc_, args, tf32_);
  }

 private:
  const LayerDesc desc_;
  const bool tf32_;
  Choice forward_, backward_;
  size_t forward_bytes_ = 0, backward_bytes_ = 0;
};

// ---- the backend --------------------------------------------------------------------------------

class TheBackend final : public MemoryBackend {
 public:
  int Threads() const override { return 0; }

  std::unique_ptr<const LayerPlan> MakePlan(const LayerDesc& desc) const override {
    const DeviceScope device(desc.device_index);
    ExpectType(desc.dtype);
    ExpectKernelSizes(desc);
    const DeviceFacts facts = FactsOf(desc.device_index);
    ExpectCapability(desc, facts.capability);
    const bool tf32 = AllowsTf32(desc.tf32, facts);
    return ForType(desc.dtype, [&](auto type) -> std::unique_ptr<const LayerPlan> {
      return std::make_unique<const CudaLayer<decltype(type)>>(desc, tf32, facts);
    });
  }

  Machine Query() const override { return QueryMachine(); }
  DeviceFacts Facts(int device) const override { return FactsOf(device); }
  Choice ChooseOnDevice(Pass pass, const LayerDesc& desc) const override {
    const DeviceScope scope(desc.device_index);
    const DeviceFacts facts = FactsOf(desc.device_index);
    return ChooseWhatFits(pass, desc, AllowsTf32(desc.tf32, facts), facts);
  }
};

const TheBackend backend;
const Registration registration(Device::kCuda, &backend);

}  // namespace
}  // namespace cuda
}  // namespace fastrnn
