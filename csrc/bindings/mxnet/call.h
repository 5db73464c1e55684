// What every call of an operator needs: the layer's sizes, MXNet's stream, a workspace, and a guard
// at the C ABI.
#pragma once

#include <mxnet/lib_api.h>

#include <cstddef>
#include <exception>
#include <memory>

#include "../../backend.h"

namespace fastrnn {
namespace operators {

// An exception must not cross into MXNet; its message becomes the MXNetError's.
template <class Call>
mxnet::ext::MXReturnValue Guard(Call call) {
  try {
    call();
    return mxnet::ext::MX_SUCCESS;
  } catch (const std::exception& e) {
    MX_ERROR_MSG << e.what();
    return mxnet::ext::MX_FAIL;
  }
}

// Sets the device and the sizes T, N and I, which the input [T, N, I] tells.
void SetSizes(LayerDesc* desc, const mxnet::ext::MXTensor& data);

// The stream to launch on. MXNet synchronizes with it; the operators never do.
void* Stream(const LayerDesc& desc, const mxnet::ext::OpResource& resource);

// MXNet hands out one shared chunk per call, of less than 2 GiB. A larger workspace is allocated
// here, for the length of the call.
class Workspace {
 public:
  Workspace(const LayerDesc& desc, const mxnet::ext::OpResource& resource, size_t bytes);
  void* data() const { return data_; }

 private:
  void* data_;
  std::unique_ptr<Memory> memory_;  // freed in the stream's order
};

}  // namespace operators
}  // namespace fastrnn
