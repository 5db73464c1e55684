// The CUDA backend: checks what it is asked for, and hands it to an algorithm.
#include <limits>
#include <map>
#include <mutex>

#include "../error.h"
#include "../rnn.h"
#include "device_scope.h"
#include "heuristics.h"
#include "persistent.h"
#include "runtime.h"
#include "stepwise.h"

namespace fastrnn {
namespace cuda {
namespace {

constexpr int kOldestCapability = 70;
constexpr int kBfloat16Capability = 80;

// cuBLAS counts rows and columns in ints, and so do the kernels. The rows of the weights, G * H,
// need no look: as many weights as would be too many overflow 64 bits.
void ExpectKernelSizes(const LayerDesc& desc) {
  constexpr int64_t kMost = std::numeric_limits<int>::max();
  const auto expect = [](const char* what, int64_t size) {
    FASTRNN_EXPECTS(size <= kMost, std::string(what) + " is " + std::to_string(size) +
                                       ", expected at most " + std::to_string(kMost) + " on CUDA");
  };
  expect("batch size", desc.batch);
  expect("input size", desc.input);
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
    case DType::kFloat16:
      return body(Half());
    case DType::kBfloat16:
      return body(Bfloat16());
    default:
      return body(float());
  }
}

// Is never launched: the driver is asked how many clusters of such blocks there is room for.
__global__ void AskedAboutKernel() {}

int ResidentBlocks(Pass pass, const LayerDesc& desc, bool tf32, const PersistentPlan& plan) {
  return ForType(desc.dtype, [&](auto type) {
    using T = decltype(type);
    return pass == Pass::kForward ? ResidentForwardBlocks<T>(desc, tf32, plan)
                                  : ResidentBackwardBlocks<T>(desc, tf32, plan);
  });
}

// Takes the grid from occupancy: where the device, which is current, holds fewer blocks of the
// chosen kernel at once than the plan has, it chooses again, with as much room as there is. That
// has an end, as every time the room is less than the time before.
Choice ChooseWhatFits(Pass pass, const LayerDesc& desc, bool tf32, DeviceFacts facts) {
  for (;;) {
    const Choice choice = Choose(pass, desc, tf32, facts);
    if (!choice.persistent) return choice;
    const int resident = ResidentBlocks(pass, desc, tf32, choice.plan);
    if (choice.plan.grid_blocks() <= resident) return choice;
    (choice.plan.cluster > 1 ? facts.cluster_multiprocessors : facts.resident_blocks) = resident;
  }
}

// What a call works with, on the layer's device.
struct Setting {
  DeviceScope device;
  DeviceFacts facts;
  bool tf32;

  explicit Setting(const LayerDesc& desc) : device(desc.device_index) {
    ExpectKernelSizes(desc);
    facts = FactsOf(desc.device_index);
    ExpectCapability(desc, facts.capability);
    tf32 = AllowsTf32(desc.tf32, facts);
  }

  Choice ChoiceOf(Pass pass, const LayerDesc& desc) const {
    return ChooseWhatFits(pass, desc, tf32, facts);
  }
};

// What takes the driver a while to say, and does not change.
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
    // As on a part of a GPU that is too small for one. There is work without clusters.
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

}  // namespace

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

Choice ChooseOnDevice(Pass pass, const LayerDesc& desc) {
  const DeviceScope scope(desc.device_index);
  const DeviceFacts facts = FactsOf(desc.device_index);
  return ChooseWhatFits(pass, desc, AllowsTf32(desc.tf32, facts), facts);
}

size_t ForwardWorkspaceBytes(const LayerDesc& desc) {
  const Setting setting(desc);
  const Choice choice = setting.ChoiceOf(Pass::kForward, desc);
  return ForType(desc.dtype, [&](auto type) {
    using T = decltype(type);
    return choice.persistent ? PersistentForwardBytes<T>(desc, choice.plan)
                             : StepwiseForwardBytes<T>(desc);
  });
}

size_t BackwardWorkspaceBytes(const LayerDesc& desc) {
  const Setting setting(desc);
  const Choice choice = setting.ChoiceOf(Pass::kBackward, desc);
  return ForType(desc.dtype, [&](auto type) {
    using T = decltype(type);
    return choice.persistent ? PersistentBackwardBytes<T>(desc, choice.plan)
                             : StepwiseBackwardBytes<T>(desc);
  });
}

void Forward(const LayerDesc& desc, const ForwardArgs& args) {
  const Setting setting(desc);
  const Choice choice = setting.ChoiceOf(Pass::kForward, desc);
  ForType(desc.dtype, [&](auto type) {
    using T = decltype(type);
    if (choice.persistent) return PersistentForward<T>(desc, args, setting.tf32, choice.plan);
    StepwiseForward<T>(desc, args, setting.tf32);
  });
}

void Backward(const LayerDesc& desc, const BackwardArgs& args) {
  const Setting setting(desc);
  const Choice choice = setting.ChoiceOf(Pass::kBackward, desc);
  ForType(desc.dtype, [&](auto type) {
    using T = decltype(type);
    if (choice.persistent) return PersistentBackward<T>(desc, args, setting.tf32, choice.plan);
    StepwiseBackward<T>(desc, args, setting.tf32);
  });
}

}  // namespace cuda
}  // namespace fastrnn
