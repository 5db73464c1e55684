// For every call of an operator: the layer's sizes, MXNet's stream, a workspace, and a guard at the
// C ABI.
#pragma once

#include <mxnet/lib_api.h>

#include <cstddef>
#include <exception>
#include <memory>

#include "../../backend.h"
#include "messages.h"

namespace fastrnn {
namespace operators {

// Stops exceptions before they reach MXNet; the message becomes that of the MXNetError.
template <class Call>
mxnet::ext::MXReturnValue Guard(Call call) {
  SetMessage("");
  try {
    call();
    return mxnet::ext::MX_SUCCESS;
  } catch (const std::exception& e) {
    SetMessage(e.what());
    return mxnet::ext::MX_FAIL;
  }
}

// MXNet's number of a layer's type.
int TypeNumber(DType dtype);

// Sets the device and the sizes T, N and I from the input [T, N, I].
void SetSizes(LayerDesc* desc, const mxnet::ext::MXTensor& data);

// The stream to work on. MXNet synchronizes with it; the operators never do.
void* Stream(const LayerDesc& desc, const mxnet::ext::OpResource& resource);

// MXNet provides one shared chunk per call, of less than 2 GiB. The backend allocates a larger
// workspace for the duration of the call.
class MxnetWorkspace {
 public:
  MxnetWorkspace(const LayerDesc& desc, const mxnet::ext::OpResource& resource, size_t bytes);
  void* data() const { return data_; }

 private:
  void* data_;
  std::unique_ptr<Memory> memory_;  // freed in the order of the stream
};

}  // namespace operators
}  // namespace fastrnn
