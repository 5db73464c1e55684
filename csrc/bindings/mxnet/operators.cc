// The MXNet operator _fastrnn_layer, for eager calls: recurrent layers, one on top of the other,
// both directions inside. For graphs see graph_layer.cc.
//
// Its one attribute is options, which are NAME=VALUE pairs with a space between:
//   mode             lstm, gru, rnn_tanh or rnn_relu
//   hidden_size      H
//   num_directions   1 (default) or 2
//   num_layers       L, 1 by default
//   dtype            float32 (default), float16 or float64: what the device's backend has
//   tf32             1 if float32 products may round their factors to TF32 on a GPU;
//                    the default is DefaultTf32()
//   use_states       0 if the states are zeros and their gradients and the last states are not
//                    wanted, otherwise 1 (default)
//   use_sequence_length  1 if each row has its own length, otherwise 0 (default)
//   projection_size  P of a projected LSTM; 0 (default): none, P is H
//   state_clip_min, state_clip_max  the cell state's range, LSTM only; infinite by default
//   state_clip_nan   1 if a NaN cell state becomes state_clip_min, otherwise 0 (default)
//   zoneout_outputs, zoneout_states, drop_states  rates of Noise (rnn.h); 0 by default
//   use_seed         1 if there is a seed, otherwise 0 (default)
//   first_layer      the number of the first layer, from which the seed's masks count; 0 by default
//   layer_norm       1 if the layers are normalised, otherwise 0 (default)
//   reserve          1 if there may be a backward pass, otherwise 0 (default)
// Inputs
//   data             [T, N, I]
//   state            [L*D, N, P], if states are used
//   state_cell       [L*D, N, H], LSTM only
//   for each layer and direction its ParametersOf (parameters.h); above the first layer, I is D*P
//   sequence_length  [N] of int32, if it is used
//   seed             [64] of float32, if there is one (rnn.h)
// The gradients of the last two are not written.
// Outputs
//   output           [T, N, D*P]
//   state            [L*D, N, P], if states are used
//   state_cell       [L*D, N, H], LSTM only
//   reserve          [T, N, words / 2] of float64, for backward, if it is asked for. Of float64,
//                    because MXNet fills its gradient with zeros, number by number.
//
// It overwrites its outputs, because lib_api does not pass MXNet's request to add. Backward
// overwrites the other gradients for the same reason.
#include <mxnet/lib_api.h>

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "../../error.h"
#include "../../noise.h"
#include "../../parameters.h"
#include "../../rnn.h"
#include "attributes.h"
#include "call.h"
#include "interface.h"

namespace {

using fastrnn::Layers;
using fastrnn::operators::Attributes;
using fastrnn::operators::Guard;
using fastrnn::operators::InputName;
using fastrnn::operators::InputType;
using fastrnn::operators::Options;
using fastrnn::operators::ParsePacked;
using fastrnn::operators::PlanFor;
using fastrnn::operators::Positions;
using fastrnn::operators::PositionsOf;
using fastrnn::operators::TypeNumber;
using mxnet::ext::MXReturnValue;
using mxnet::ext::MXTensor;
using mxnet::ext::OpResource;
using Shape = std::vector<unsigned int>;
using Shapes = std::vector<Shape>;
using Tensors = std::vector<MXTensor>;

constexpr unsigned int kUnknown = std::numeric_limits<unsigned int>::max();
constexpr int kUnknownType = -1;

std::string ToString(const Shape& shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i) {
    text +=
        (i > 0 ? ", " : "") + (shape[i] == kUnknown ? std::string("?") : std::to_string(shape[i]));
  }
  return text + (shape.size() == 1 ? ",)" : ")");
}

// MXNet asks dozens of times in a training step, mostly for the same layers.
MXReturnValue CountArrays(const Attributes& attributes, int* num_inputs, int* num_outputs) {
  struct Count {
    Attributes of;
    int inputs, outputs;
  };
  thread_local Count latest;
  return Guard([&] {
    if (latest.of.empty() || latest.of != attributes) {
      const Positions positions = PositionsOf(ParsePacked(attributes));
      latest = {attributes, positions.inputs, positions.outputs};
    }
    *num_inputs = latest.inputs;
    *num_outputs = latest.outputs;
  });
}

MXReturnValue InferType(const Attributes& attributes, std::vector<int>* inputs,
                        std::vector<int>* outputs) {
  return Guard([&] {
    const Options options = ParsePacked(attributes);
    const Layers& layers = options.layers;
    const Positions positions = PositionsOf(options);
    for (int i = 0; i < positions.inputs; ++i) {
      int& type = inputs->at(i);
      const int expected = InputType(layers, positions, i);
      const char* const name = i == positions.lengths ? "int32"
                               : i == positions.seed  ? "float32"
                                                      : fastrnn::Name(layers.dtype);
      FASTRNN_EXPECTS(type == expected || type == kUnknownType,
                      "_fastrnn_layer: " + InputName(layers, positions, i) +
                          " has MXNet's type number " + std::to_string(type) + ", expected " +
                          name + " (" + std::to_string(expected) + ")");
      type = expected;
    }
    for (int& type : *outputs) type = TypeNumber(layers.dtype);
    if (layers.reserve) outputs->back() = mxnet::ext::kFloat64;
  });
}

void ExpectShape(const std::string& name, const Shape& shape, const Shape& expected) {
  FASTRNN_EXPECTS(shape == expected, "_fastrnn_layer: " + name + " has shape " + ToString(shape) +
                                         ", expected " + ToString(expected));
}

Shape ShapeOf(const fastrnn::Parameter& parameter) {
  const auto rows = static_cast<unsigned int>(parameter.rows);
  if (parameter.columns == 0) return {rows};
  return {rows, static_cast<unsigned int>(parameter.columns)};
}

// Called for arrays, whose shapes are all known.
MXReturnValue InferShape(const Attributes& attributes, Shapes* inputs, Shapes* outputs) {
  return Guard([&] {
    Options options = ParsePacked(attributes);
    const Positions positions = PositionsOf(options);
    Layers& layers = options.layers;
    const auto H = static_cast<unsigned int>(layers.hidden);
    const auto P = static_cast<unsigned int>(layers.outputs());
    const auto D = static_cast<unsigned int>(layers.directions);
    const Shape& data = inputs->at(0);
    FASTRNN_EXPECTS(data.size() == 3, "_fastrnn_layer: data has shape " + ToString(data) +
                                          ", expected three dimensions");
    layers.input = data[2];
    const auto LD = static_cast<unsigned int>(layers.layers) * D;
    const Shape states[] = {{LD, data[1], P}, {LD, data[1], H}};
    const int num_states = !options.has_states ? 0 : layers.has_c() ? 2 : 1;
    const auto expect = [&](int i, const Shape& expected) {
      ExpectShape(InputName(layers, positions, i), inputs->at(i), expected);
    };
    for (int i = 0; i < num_states; ++i) expect(positions.states + i, states[i]);
    const size_t own = ParametersOf(layers).size();
    for (size_t i = 0; i < positions.weights.size(); ++i) {
      const auto layer = static_cast<int64_t>(i / own) / layers.directions;
      expect(positions.weights[i], ShapeOf(ParametersOf(layers.At(layer))[i % own]));
    }
    if (positions.lengths != Positions::kNone) expect(positions.lengths, {data[1]});
    if (positions.seed != Positions::kNone) expect(positions.seed, {fastrnn::kSeedBits});
    outputs->at(0) = {data[0], data[1], D * P};
    for (int i = 0; i < num_states; ++i) outputs->at(1 + i) = states[i];
    if (layers.reserve) {
      const auto numbers = static_cast<unsigned int>((ReserveWords(layers) + 1) / 2);
      outputs->back() = {data[0], data[1], std::max(numbers, 1u)};  // MXNet has no empty arrays
    }
  });
}

MXReturnValue Forward(const Attributes& attributes, Tensors* inputs, Tensors* outputs,
                      const OpResource& resource) {
  return Guard([&] {
    const Options options = ParsePacked(attributes);
    const auto plan = PlanFor(options, inputs->at(Positions::kData));
    void* const reserve = options.layers.reserve ? outputs->back().data_ptr : nullptr;
    RunForward(*plan, PositionsOf(options), options.first_layer, *inputs, *outputs, reserve,
               resource);
  });
}

MXReturnValue Backward(const Attributes& attributes, Tensors* tensors, Tensors* gradients,
                       const OpResource& resource) {
  return Guard([&] {
    const Options options = ParsePacked(attributes);
    FASTRNN_EXPECTS(options.layers.reserve,
                    "_fastrnn_layer: reserve is 0, expected 1 for a call with a backward pass");
    const Positions positions = PositionsOf(options);
    const auto plan = PlanFor(options, tensors->at(positions.outputs + Positions::kData));
    RunBackward(*plan, positions, options.first_layer, *tensors, tensors->back().data_ptr,
                *gradients, resource);
  });
}

}  // namespace

REGISTER_OP(_fastrnn_layer)
    .setParseAttrs(CountArrays)
    .setInferType(InferType)
    .setInferShape(InferShape)
    .setForward(Forward, "cpu")
    .setForward(Forward, "gpu")
    .setBackward(Backward, "cpu")
    .setBackward(Backward, "gpu");

// MXNet calls this to ask whether the library supports its version.
MXReturnValue initialize(int version) {
  constexpr int kFirstVersion = 10900;
  if (version >= kFirstVersion) return Guard(fastrnn::operators::FindInterface);
  fastrnn::operators::SetMessage("fastrnn needs MXNet 1.9 or later, this is version number " +
                                 std::to_string(version));
  return mxnet::ext::MX_FAIL;
}
