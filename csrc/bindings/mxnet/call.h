// Runs the operators' calls: their arrays, MXNet's stream, a workspace, and a guard at the C ABI.
#pragma once

#include <mxnet/lib_api.h>

#include <cstdint>
#include <exception>
#include <memory>
#include <vector>

#include "../../rnn.h"
#include "attributes.h"
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

// MXNet's number of a type.
int TypeNumber(DType dtype);

// MXNet's number of an input's type.
int InputType(const Layers& layers, const Positions& positions, int index);

// The plan for layers whose device and sizes T, N and I are those of the input [T, N, I]; the rest
// comes from the options and from the environment.
std::shared_ptr<const Plan> PlanFor(const Options& options, const mxnet::ext::MXTensor& data);

// `first_layer` is the number of the first layer in the stack that the masks of noise count.
// `reserve` is written if the plan's layers keep one, and may be null otherwise.
void RunForward(const Plan& plan, const Positions& positions, int64_t first_layer,
                const std::vector<mxnet::ext::MXTensor>& inputs,
                const std::vector<mxnet::ext::MXTensor>& outputs, void* reserve,
                const mxnet::ext::OpResource& resource);

// `tensors` are the gradients of the outputs, the inputs and the outputs, in MXNet's order. The
// gradients of lengths and seed are not written.
void RunBackward(const Plan& plan, const Positions& positions, int64_t first_layer,
                 const std::vector<mxnet::ext::MXTensor>& tensors, const void* reserve,
                 const std::vector<mxnet::ext::MXTensor>& gradients,
                 const mxnet::ext::OpResource& resource);

}  // namespace operators
}  // namespace fastrnn
