#include "call.h"

#include <limits>
#include <string>

#include "../../error.h"

namespace fastrnn {
namespace operators {
namespace {

using mxnet::ext::MXTensor;
using mxnet::ext::OpResource;

// In tests the CUDA backend may be emulated, and works in the host's memory.
#ifdef FASTRNN_EMULATE
constexpr bool kEmulated = true;
#else
constexpr bool kEmulated = false;
#endif

// MXNet takes the number of bytes as an int. Emulated builds set a lower limit, so that small tests
// exceed it.
#if !defined(FASTRNN_MXNET_WORKSPACE_BYTES)
#define FASTRNN_MXNET_WORKSPACE_BYTES std::numeric_limits<int>::max()
#endif
constexpr size_t kMostOfMxnet = FASTRNN_MXNET_WORKSPACE_BYTES;

bool OnGpu(const LayerDesc& desc) { return desc.device == Device::kCuda && !kEmulated; }

}  // namespace

int TypeNumber(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return mxnet::ext::kFloat32;
    case DType::kFloat16:
      return mxnet::ext::kFloat16;
    case DType::kFloat64:
      return mxnet::ext::kFloat64;
    case DType::kBfloat16:
      break;
  }
  throw InvalidArgument(std::string("MXNet's libraries have no ") + Name(dtype), __FILE__,
                        __LINE__);
}

void SetSizes(LayerDesc* desc, const MXTensor& data) {
  const bool cuda = kEmulated || data.ctx.dev_type == "gpu";
  desc->device = cuda ? Device::kCuda : Device::kCpu;
  desc->device_index = OnGpu(*desc) ? data.ctx.dev_id : 0;
  desc->steps = data.shape.at(0);
  desc->batch = data.shape.at(1);
  desc->input = data.shape.at(2);
}

void* Stream(const LayerDesc& desc, const OpResource& resource) {
  return OnGpu(desc) ? resource.get_cuda_stream() : nullptr;
}

MxnetWorkspace::MxnetWorkspace(const LayerDesc& desc, const OpResource& resource, size_t bytes) {
  size_t space = bytes + kWorkspaceAlignment;
  if (space > kMostOfMxnet) {
    memory_ = BackendOf(desc.device).Allocate(desc.device_index, space, Stream(desc, resource));
    data_ = memory_->data();
  } else {
    const int size = static_cast<int>(space);
    data_ = OnGpu(desc) ? resource.alloc_gpu(size) : resource.alloc_cpu(size);
    FASTRNN_EXPECTS(data_ != nullptr, "MXNet granted no workspace");
  }
  std::align(kWorkspaceAlignment, bytes, data_, space);
}

}  // namespace operators
}  // namespace fastrnn
