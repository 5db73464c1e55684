// The CUDA backend: checks what it is asked for, and hands it to an algorithm.
#include <cstdlib>
#include <cstring>
#include <limits>

#include "../error.h"
#include "../rnn.h"
#include "device_scope.h"
#include "runtime.h"
#include "stepwise.h"

namespace fastrnn {
namespace cuda {
namespace {

constexpr int kOldestCapability = 70;
constexpr int kTf32Capability = 80;
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

// 10 * major + minor.
int ComputeCapability(int device) {
  int major = 0, minor = 0;
  FASTRNN_CUDA_TRY(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  FASTRNN_CUDA_TRY(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
  return 10 * major + minor;
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

// cuBLAS knows the variable too. What it forbids is forbidden to every library of the process.
bool Tf32Overruled() {
  const char* text = std::getenv("NVIDIA_TF32_OVERRIDE");
  return text != nullptr && std::strcmp(text, "0") == 0;
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

// Calls body with a value of the layer's type and whether to use TF32, on the layer's device.
template <class Body>
void OnDevice(const LayerDesc& desc, Body body) {
  ExpectKernelSizes(desc);
  const DeviceScope device(desc.device_index);
  const int capability = ComputeCapability(desc.device_index);
  ExpectCapability(desc, capability);
  const bool tf32 = desc.tf32 && capability >= kTf32Capability && !Tf32Overruled();
  ForType(desc.dtype, [&](auto type) { body(type, tf32); });
}

}  // namespace

size_t ForwardWorkspaceBytes(const LayerDesc& desc) {
  ExpectKernelSizes(desc);
  return ForType(desc.dtype, [&](auto type) { return StepwiseForwardBytes<decltype(type)>(desc); });
}

size_t BackwardWorkspaceBytes(const LayerDesc& desc) {
  ExpectKernelSizes(desc);
  return ForType(desc.dtype,
                 [&](auto type) { return StepwiseBackwardBytes<decltype(type)>(desc); });
}

void Forward(const LayerDesc& desc, const ForwardArgs& args) {
  OnDevice(desc, [&](auto type, bool tf32) { StepwiseForward<decltype(type)>(desc, args, tf32); });
}

void Backward(const LayerDesc& desc, const BackwardArgs& args) {
  OnDevice(desc, [&](auto type, bool tf32) { StepwiseBackward<decltype(type)>(desc, args, tf32); });
}

}  // namespace cuda
}  // namespace fastrnn
