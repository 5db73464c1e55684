// The MXNet operator _fastrnn_rnn: one recurrent layer in a graph, both directions inside.
//
// MXNet passes shapes to an operator of a library through buffers that an array of unknown rank
// overruns, and the operator cannot report that a dimension is unknown. So this is a subgraph
// operator: MXNet infers shapes and types from the node's subgraph, which calls MXNet's own RNN
// operator, and never asks the library (fastrnn/mxnet/native.py builds the node).
//
// Attributes
//   mode, hidden_size, num_directions, dtype, tf32, use_sequence_length, projection_size,
//   state_clip_min, state_clip_max, state_clip_nan, zoneout_outputs, zoneout_states, drop_states,
//   use_seed, first_layer, layer_norm: as for _fastrnn_layer (operators.cc)
// Inputs
//   data             [T, N, I]
//   i2h_weight       [G*H, I], for each direction
//   state            [D, N, P]
//   state_cell       [D, N, H], LSTM only
//   sequence_length  [N] of int32, if it is used; its gradient is not written
//   the other ParametersOf (parameters.h) for each direction. Their shapes depend on no other
//   array, so they are what MXNet calls extra inputs, which the subgraph does not have: MXNet
//   serializes the subgraph at every call of a graph without static_alloc.
//   seed             [64] of float32, if there is one; also an extra input. Its gradient is not
//                    written
// Outputs
//   output           [T, N, D*P]
//   state            [D, N, P]
//   state_cell       [D, N, H], LSTM only
//   reserve          [T, N, words] of float32, for backward
//
// It overwrites its outputs, because lib_api does not pass MXNet's request to add. Every array
// whose gradient may be accumulated needs one of MXNet's operators between it and this one.
#include <mxnet/lib_api.h>

#include <memory>
#include <string>
#include <vector>

#include "../../error.h"
#include "../../parameters.h"
#include "../../rnn.h"
#include "attributes.h"
#include "call.h"

namespace {

using fastrnn::Layers;
using fastrnn::Parameter;
using fastrnn::Pass;
using fastrnn::operators::Attributes;
using fastrnn::operators::Guard;
using fastrnn::operators::MxnetWorkspace;
using fastrnn::operators::SetSizes;
using fastrnn::operators::Stream;
using fastrnn::operators::TypeNumber;
using mxnet::ext::MXReturnValue;
using mxnet::ext::MXTensor;
using mxnet::ext::OpResource;
using Tensors = std::vector<MXTensor>;

class GraphLayer : public mxnet::ext::CustomStatefulOp {
 public:
  explicit GraphLayer(const Attributes& attributes)
      : layers_(fastrnn::operators::ParseLayers(attributes)),
        parameters_(ParametersOf(layers_)),
        has_lengths_(fastrnn::operators::Positions(layers_, attributes).has_lengths),
        has_seed_(fastrnn::operators::Positions(layers_, attributes).has_seed),
        first_layer_(fastrnn::operators::FirstLayer(attributes)) {
    FASTRNN_EXPECTS(layers_.layers == 1, "_fastrnn_rnn: expected one layer");
    layers_.reserve = true;
  }

  MXReturnValue Forward(Tensors* inputs, Tensors* outputs, const OpResource& resource) override {
    return Guard([&] {
      const MXTensor* in = inputs->data();
      const std::shared_ptr<const fastrnn::Plan> plan = PlanFor(in);
      fastrnn::ForwardArrays args;
      args.x = in[0].data_ptr;
      args.h0 = in[state()].data_ptr;
      const auto weights = Directions<fastrnn::Weights>(in, &Parameter::weight);
      args.weights = weights.data();
      args.lengths = Lengths(in);
      args.seed = Seed(in);
      args.first_layer = first_layer_;
      args.y = outputs->at(0).data_ptr;
      args.hn = outputs->at(1).data_ptr;
      if (layers_.has_c()) {
        args.c0 = in[cell()].data_ptr;
        args.cn = outputs->at(2).data_ptr;
      }
      args.reserve = outputs->back().data_ptr;
      FASTRNN_EXPECTS(ReserveWords(plan->layers()) <= outputs->back().shape.back(),
                      "_fastrnn_rnn: the reserve is smaller than this library's");
      const MxnetWorkspace workspace(plan->layers(), resource,
                                     plan->workspace_bytes(Pass::kForward));
      args.workspace = workspace.data();
      args.stream = Stream(plan->layers(), resource);
      plan->Forward(args);
    });
  }

  // MXNet passes the gradients of the outputs, the inputs and the outputs, in this order.
  MXReturnValue Backward(Tensors* tensors, Tensors* gradients,
                         const OpResource& resource) override {
    return Guard([&] {
      const int num_outputs = layers_.has_c() ? 4 : 3;
      const MXTensor* d_out = tensors->data();
      const MXTensor* in = d_out + num_outputs;
      const MXTensor* out = in + gradients->size();
      const std::shared_ptr<const fastrnn::Plan> plan = PlanFor(in);
      fastrnn::BackwardArrays args;
      args.dy = d_out[0].data_ptr;
      args.dhn = d_out[1].data_ptr;
      args.x = in[0].data_ptr;
      args.h0 = in[state()].data_ptr;
      const auto weights = Directions<fastrnn::Weights>(in, &Parameter::weight);
      args.weights = weights.data();
      args.lengths = Lengths(in);
      args.seed = Seed(in);
      args.first_layer = first_layer_;
      args.y = out[0].data_ptr;
      args.reserve = out[num_outputs - 1].data_ptr;
      args.dx = gradients->at(0).data_ptr;
      args.dh0 = gradients->at(state()).data_ptr;
      const auto weight_gradients =
          Directions<fastrnn::WeightGradients>(gradients->data(), &Parameter::gradient);
      args.gradients = weight_gradients.data();
      if (layers_.has_c()) {
        args.dcn = d_out[2].data_ptr;
        args.c0 = in[cell()].data_ptr;
        args.dc0 = gradients->at(cell()).data_ptr;
      }
      const MxnetWorkspace workspace(plan->layers(), resource,
                                     plan->workspace_bytes(Pass::kBackward));
      args.workspace = workspace.data();
      args.stream = Stream(plan->layers(), resource);
      plan->Backward(args);
    });
  }

 private:
  int extra_per_direction() const { return static_cast<int>(parameters_.size()) - 1; }

  // Positions of the inputs.
  int state() const { return 1 + directions(); }
  int cell() const { return state() + 1; }
  int lengths() const { return state() + (layers_.has_c() ? 2 : 1); }
  int first_extra() const { return lengths() + (has_lengths_ ? 1 : 0); }
  int seed() const { return first_extra() + extra_per_direction() * directions(); }
  int num_inputs() const { return seed() + (has_seed_ ? 1 : 0); }
  int directions() const { return static_cast<int>(layers_.directions); }

  // Checks the types of a call's inputs, since a graph traced in one type may be called with
  // another; returns the plan.
  std::shared_ptr<const fastrnn::Plan> PlanFor(const MXTensor* inputs) const {
    Layers layers = layers_;
    SetSizes(&layers, inputs[0]);
    const int type = TypeNumber(layers.dtype);
    for (int i = 0; i < num_inputs(); ++i) {
      const bool is_lengths = has_lengths_ && i == lengths(), is_seed = has_seed_ && i == seed();
      const int expected = is_lengths ? static_cast<int>(mxnet::ext::kInt32)
                           : is_seed  ? static_cast<int>(mxnet::ext::kFloat32)
                                      : type;
      FASTRNN_EXPECTS(inputs[i].dtype == expected,
                      "_fastrnn_rnn: this graph was traced in " +
                          std::string(fastrnn::Name(layers.dtype)) + ", and input " +
                          std::to_string(i) + " has MXNet's type number " +
                          std::to_string(inputs[i].dtype) +
                          ": call hybridize() again after changing the parameters' type");
    }
    return fastrnn::MakePlan(layers);
  }

  // The arrays of each direction, among the inputs or their gradients; `member` is that of
  // Parameter for them.
  template <class Direction, class Member>
  std::vector<Direction> Directions(const MXTensor* arrays, Member member) const {
    std::vector<Direction> found(static_cast<size_t>(directions()));
    const MXTensor* extra = arrays + first_extra();
    const MXTensor* first = arrays + 1;
    for (Direction& direction : found) {
      direction.*(parameters_[0].*member) = (first++)->data_ptr;
      for (size_t i = 1; i < parameters_.size(); ++i) {
        direction.*(parameters_[i].*member) = (extra++)->data_ptr;
      }
    }
    return found;
  }

  const int32_t* Lengths(const MXTensor* inputs) const {
    return has_lengths_ ? static_cast<int32_t*>(inputs[lengths()].data_ptr) : nullptr;
  }

  const float* Seed(const MXTensor* inputs) const {
    return has_seed_ ? static_cast<float*>(inputs[seed()].data_ptr) : nullptr;
  }

  Layers layers_;                            // without the sizes that come from the arrays
  const std::vector<Parameter> parameters_;  // of a direction
  const bool has_lengths_, has_seed_;
  const int64_t first_layer_;
};

MXReturnValue CreateState(const Attributes& attributes, const mxnet::ext::MXContext&,
                          const std::vector<std::vector<unsigned int>>&, const std::vector<int>,
                          mxnet::ext::CustomStatefulOp** op) {
  return Guard([&] { *op = mxnet::ext::CustomStatefulOp::create<GraphLayer>(attributes); });
}

}  // namespace

REGISTER_OP(_fastrnn_rnn)
    .setIsSubgraphOp()
    .setCreateOpState(CreateState, "cpu")
    .setCreateOpState(CreateState, "gpu");
