// The MXNet operator _fastrnn_rnn, for graphs: recurrent layers, one on top of the other, both
// directions inside. For eager calls see operators.cc.
//
// MXNet passes shapes to an operator of a library through buffers that an array of unknown rank
// overruns, and the operator cannot report that a dimension is unknown. So this is a subgraph
// operator: MXNet infers shapes and types from the node's subgraph, which calls MXNet's own RNN
// operator, and never asks the library (fastrnn/mxnet/native.py builds the node).
//
// Attributes
//   mode, hidden_size, num_directions, num_layers, dtype, tf32, use_states, use_sequence_length,
//   projection_size, state_clip_min, state_clip_max, state_clip_nan, zoneout_outputs,
//   zoneout_states, drop_states, use_seed, first_layer, layer_norm: as for _fastrnn_layer
//   (operators.cc)
// Inputs
//   data             [T, N, I]
//   i2h_weight       [G*H, I], for each direction of the first layer
//   state            [L*D, N, P], if states are used
//   state_cell       [L*D, N, H], LSTM only
//   sequence_length  [N] of int32, if it is used; its gradient is not written
//   the other ParametersOf (parameters.h) for each layer and direction. Their shapes depend on no
//   other array, so they are what MXNet calls extra inputs, which the subgraph does not have:
//   MXNet serializes the subgraph at every call of a graph without static_alloc.
//   seed             [64] of float32, if there is one; also an extra input. Its gradient is not
//                    written
// Outputs
//   output           [T, N, D*P]
//   state            [L*D, N, P], if states are used
//   state_cell       [L*D, N, H], LSTM only
//   In graphs that older versions exported also a reserve, which is not written
//
// The reserve is in the operator's state, as in MXNet's own RNN: if it were an output, MXNet would
// make zeros for its gradient. Each recorded call of a graph has its own state. An executor has one
// for all its calls, made when nothing is recorded.
//
// It overwrites its outputs, because lib_api does not pass MXNet's request to add. Every array
// whose gradient may be accumulated needs one of MXNet's operators between it and this one.
#include <mxnet/lib_api.h>

#include <memory>
#include <string>
#include <vector>

#include "../../error.h"
#include "../../layout.h"
#include "../../rnn.h"
#include "attributes.h"
#include "call.h"
#include "interface.h"

namespace {

using fastrnn::Carver;
using fastrnn::operators::Array;
using fastrnn::operators::Attributes;
using fastrnn::operators::Guard;
using fastrnn::operators::Options;
using fastrnn::operators::Positions;
using mxnet::ext::MXReturnValue;
using mxnet::ext::MXTensor;
using mxnet::ext::OpResource;
using Tensors = std::vector<MXTensor>;

class GraphLayers : public mxnet::ext::CustomStatefulOp {
 public:
  explicit GraphLayers(const Options& options)
      : options_(options),
        positions_(fastrnn::operators::PositionsInGraph(options)),
        is_recorded_(fastrnn::operators::IsRecording()),
        keeps_reserve_(is_recorded_) {}

  MXReturnValue Forward(Tensors* inputs, Tensors* outputs, const OpResource& resource) override {
    return Guard([&] {
      outputs_.reset();
      RunForward(*inputs, *outputs, resource);
    });
  }

  MXReturnValue Backward(Tensors* tensors, Tensors* gradients,
                         const OpResource& resource) override {
    return Guard([&] {
      // MXNet passes the gradients of the outputs, the inputs and the outputs.
      Positions positions = positions_;
      positions.outputs = (static_cast<int>(tensors->size()) - positions.inputs) / 2;
      const auto inputs = tensors->begin() + positions.outputs;
      if (!has_reserve_) RunForwardAgain(inputs, inputs + positions.inputs, resource);
      const auto plan = CheckedPlan(true, &*inputs);
      fastrnn::operators::RunBackward(*plan, positions, options_.first_layer, *tensors,
                                      ReserveOrNull(), *gradients, resource);
      if (!is_recorded_ && plan->layers().device == fastrnn::Device::kCpu) Free();
    });
  }

 private:
  void RunForward(const Tensors& inputs, const Tensors& outputs, const OpResource& resource) {
    has_reserve_ = false;
    const auto plan = CheckedPlan(keeps_reserve_, inputs.data());
    const size_t bytes = keeps_reserve_ ? plan->reserve_bytes() : 0;
    if (bytes > 0 && (reserve_ == nullptr || reserve_->bytes() < bytes)) {
      reserve_.reset();
      reserve_ = std::make_unique<Array>(inputs[Positions::kData].ctx, bytes);
    }
    fastrnn::operators::RunForward(*plan, positions_, options_.first_layer, inputs, outputs,
                                   ReserveOrNull(), resource);
    has_reserve_ = keeps_reserve_;
  }

  // Computes the reserve of the latest call, which kept none, from its inputs. The outputs get this
  // run's arrays. Later calls keep a reserve.
  void RunForwardAgain(Tensors::iterator inputs, Tensors::iterator outputs,
                       const OpResource& resource) {
    const auto end = outputs + positions_.outputs;
    const auto bytes_of = [&](const MXTensor& tensor) {
      const int64_t bytes = tensor.size() * SizeOf(options_.layers.dtype);
      return Carver::Round(static_cast<size_t>(bytes));
    };
    size_t bytes = 0;
    for (auto output = outputs; output != end; ++output) bytes += bytes_of(*output);
    outputs_ = std::make_unique<Array>(inputs->ctx, bytes);
    auto* data = static_cast<char*>(outputs_->data());
    for (auto output = outputs; output != end; ++output) {
      output->data_ptr = data;
      data += bytes_of(*output);
    }
    keeps_reserve_ = true;
    RunForward({inputs, outputs}, {outputs, end}, resource);
  }

  // Frees what an executor would hold beside the memory that it shares with others. A GPU may still
  // be reading it.
  void Free() {
    has_reserve_ = false;
    reserve_.reset();
    outputs_.reset();
  }

  void* ReserveOrNull() const { return reserve_ == nullptr ? nullptr : reserve_->data(); }

  // Checks the types of a call's inputs, since a graph traced in one type may be called with
  // another; returns the plan.
  std::shared_ptr<const fastrnn::Plan> CheckedPlan(bool reserve, const MXTensor* inputs) const {
    for (int i = 0; i < positions_.inputs; ++i) {
      const int expected = InputType(options_.layers, positions_, i);
      FASTRNN_EXPECTS(inputs[i].dtype == expected,
                      "_fastrnn_rnn: this graph was traced in " +
                          std::string(fastrnn::Name(options_.layers.dtype)) + ", and input " +
                          std::to_string(i) + " has MXNet's type number " +
                          std::to_string(inputs[i].dtype) +
                          ": call hybridize() again after changing the parameters' type");
    }
    Options options = options_;
    options.layers.reserve = reserve;
    return fastrnn::operators::PlanFor(options, inputs[Positions::kData]);
  }

  const Options options_;
  const Positions positions_;
  const bool is_recorded_;  // rather than of an executor, or without a backward pass
  bool keeps_reserve_;
  bool has_reserve_ = false;  // of the latest call
  std::unique_ptr<Array> reserve_;
  std::unique_ptr<Array> outputs_;  // of RunForwardAgain
};

MXReturnValue CreateState(const Attributes& attributes, const mxnet::ext::MXContext&,
                          const std::vector<std::vector<unsigned int>>&, const std::vector<int>,
                          mxnet::ext::CustomStatefulOp** op) {
  return Guard([&] {
    const Options options = fastrnn::operators::ParseAttributes(attributes);
    *op = mxnet::ext::CustomStatefulOp::create<GraphLayers>(options);
  });
}

}  // namespace

REGISTER_OP(_fastrnn_rnn)
    .setIsSubgraphOp()
    .setCreateOpState(CreateState, "cpu")
    .setCreateOpState(CreateState, "gpu");
