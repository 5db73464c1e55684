// The MXNet operator _fastrnn_layer, for eager calls without a backward pass: recurrent layers, one
// on top of the other, both directions inside. For graphs see graph_layer.cc.
//
// Attributes
//   mode             lstm, gru, rnn_tanh or rnn_relu
//   hidden_size      H
//   num_directions   1 or 2
//   num_layers       L, 1 by default
//   dtype            float32 (default), float16 or float64: what the device's backend has
//   tf32             1 if float32 products may round their factors to TF32 on a GPU;
//                    the default is DefaultTf32()
//   use_sequence_length  1 if each row has its own length, otherwise 0 (default)
//   projection_size  P of a projected LSTM; 0 (default): none, P is H
//   state_clip_min, state_clip_max  the cell state's range, LSTM only; infinite by default
//   state_clip_nan   1 if a NaN cell state becomes state_clip_min, otherwise 0 (default)
//   zoneout_outputs, zoneout_states, drop_states  rates of Noise (rnn.h); 0 by default
//   use_seed         1 if there is a seed, otherwise 0 (default)
//   first_layer      the number of the first layer, from which the seed's masks count; 0 by default
//   layer_norm       1 if the layers are normalised, otherwise 0 (default)
// Inputs
//   data             [T, N, I]
//   state            [L*D, N, P]
//   state_cell       [L*D, N, H], LSTM only
//   for each layer and direction its ParametersOf (parameters.h); above the first layer, I is D*P
//   sequence_length  [N] of int32, if it is used
//   seed             [64] of float32, if there is one (rnn.h)
// Outputs
//   output           [T, N, D*P]
//   state            [L*D, N, P]
//   state_cell       [L*D, N, H], LSTM only
#include <mxnet/lib_api.h>

#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "../../error.h"
#include "../../noise.h"
#include "../../parameters.h"
#include "../../rnn.h"
#include "attributes.h"
#include "call.h"

namespace {

using fastrnn::Layers;
using fastrnn::operators::Attributes;
using fastrnn::operators::FirstLayer;
using fastrnn::operators::Guard;
using fastrnn::operators::InputName;
using fastrnn::operators::MxnetWorkspace;
using fastrnn::operators::ParseLayers;
using fastrnn::operators::Positions;
using fastrnn::operators::SetSizes;
using fastrnn::operators::Stream;
using fastrnn::operators::TypeNumber;
using mxnet::ext::MXReturnValue;
using mxnet::ext::MXTensor;
using mxnet::ext::OpResource;
using Shape = std::vector<unsigned int>;
using Shapes = std::vector<Shape>;

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

MXReturnValue ParseAttributes(const Attributes& attributes, int* num_inputs, int* num_outputs) {
  return Guard([&] {
    const Positions positions(ParseLayers(attributes), attributes);
    *num_inputs = positions.inputs;
    *num_outputs = positions.outputs;
  });
}

MXReturnValue InferType(const Attributes& attributes, std::vector<int>* inputs,
                        std::vector<int>* outputs) {
  return Guard([&] {
    const Layers layers = ParseLayers(attributes);
    const Positions positions(layers, attributes);
    const int layer_type = TypeNumber(layers.dtype);
    for (int i = 0; i < positions.inputs; ++i) {
      int& type = inputs->at(i);
      const bool lengths = positions.has_lengths && i == positions.lengths;
      const bool seed = positions.has_seed && i == positions.seed;
      const int expected = lengths ? static_cast<int>(mxnet::ext::kInt32)
                           : seed  ? static_cast<int>(mxnet::ext::kFloat32)
                                   : layer_type;
      FASTRNN_EXPECTS(type == expected || type == kUnknownType,
                      "_fastrnn_layer: " + InputName(layers, positions, i) +
                          " has MXNet's type number " + std::to_string(type) + ", expected " +
                          (lengths ? "int32"
                           : seed  ? "float32"
                                   : fastrnn::Name(layers.dtype)) +
                          " (" + std::to_string(expected) + ")");
      type = expected;
    }
    for (int& type : *outputs) type = layer_type;
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
    Layers layers = ParseLayers(attributes);
    const Positions positions(layers, attributes);
    const auto H = static_cast<unsigned int>(layers.hidden);
    const auto P = static_cast<unsigned int>(layers.outputs());
    const auto D = static_cast<unsigned int>(layers.directions);
    const Shape& data = inputs->at(0);
    FASTRNN_EXPECTS(data.size() == 3, "_fastrnn_layer: data has shape " + ToString(data) +
                                          ", expected three dimensions");
    layers.input = data[2];
    const auto LD = static_cast<unsigned int>(layers.layers) * D;
    const Shape states[] = {{LD, data[1], P}, {LD, data[1], H}};
    const auto expect = [&](int i, const Shape& expected) {
      ExpectShape(InputName(layers, positions, i), inputs->at(i), expected);
    };
    for (int i = 1; i < positions.first_weight; ++i) expect(i, states[i - 1]);
    for (int i = positions.first_weight; i < positions.lengths; ++i) {
      const int weight = i - positions.first_weight;
      const int layer = weight / positions.weights_per_direction / static_cast<int>(D);
      const int own = weight % positions.weights_per_direction;
      expect(i, ShapeOf(ParametersOf(layers.At(layer))[static_cast<size_t>(own)]));
    }
    if (positions.has_lengths) expect(positions.lengths, {data[1]});
    if (positions.has_seed) expect(positions.seed, {fastrnn::kSeedBits});
    (*outputs)[0] = {data[0], data[1], D * P};
    for (int i = 1; i < positions.first_weight; ++i) (*outputs)[i] = states[i - 1];
  });
}

void* Data(const MXTensor& tensor) { return tensor.data_ptr; }

const int32_t* Lengths(const Positions& positions, const MXTensor* inputs) {
  return positions.has_lengths ? static_cast<int32_t*>(Data(inputs[positions.lengths])) : nullptr;
}

// For each layer and direction.
std::vector<fastrnn::Weights> Weights(const Layers& layers, const Positions& positions,
                                      const std::vector<MXTensor>& inputs) {
  const std::vector<fastrnn::Parameter> parameters = ParametersOf(layers);
  std::vector<fastrnn::Weights> weights(static_cast<size_t>(layers.layers * layers.directions));
  auto input = inputs.begin() + positions.first_weight;
  for (fastrnn::Weights& direction : weights) {
    for (const fastrnn::Parameter& parameter : parameters) {
      direction.*parameter.weight = Data(*input++);
    }
  }
  return weights;
}

MXReturnValue Forward(const Attributes& attributes, std::vector<MXTensor>* inputs,
                      std::vector<MXTensor>* outputs, const OpResource& resource) {
  return Guard([&] {
    Layers layers = ParseLayers(attributes);
    const Positions positions(layers, attributes);
    SetSizes(&layers, inputs->at(0));
    const std::shared_ptr<const fastrnn::Plan> plan = fastrnn::MakePlan(layers);
    fastrnn::ForwardArrays args;
    args.x = Data(inputs->at(0));
    args.lengths = Lengths(positions, inputs->data());
    if (positions.has_seed) {
      args.seed = static_cast<const float*>(Data(inputs->at(positions.seed)));
    }
    args.first_layer = FirstLayer(attributes);
    args.h0 = Data(inputs->at(1));
    args.y = Data(outputs->at(0));
    args.hn = Data(outputs->at(1));
    if (layers.has_c()) {
      args.c0 = Data(inputs->at(2));
      args.cn = Data(outputs->at(2));
    }
    const std::vector<fastrnn::Weights> weights = Weights(layers, positions, *inputs);
    args.weights = weights.data();
    const MxnetWorkspace workspace(layers, resource,
                                   plan->workspace_bytes(fastrnn::Pass::kForward));
    args.workspace = workspace.data();
    args.stream = Stream(layers, resource);
    plan->Forward(args);
  });
}

}  // namespace

REGISTER_OP(_fastrnn_layer)
    .setParseAttrs(ParseAttributes)
    .setInferType(InferType)
    .setInferShape(InferShape)
    .setForward(Forward, "cpu")
    .setForward(Forward, "gpu");

// MXNet calls this to ask whether the library supports its version.
MXReturnValue initialize(int version) {
  constexpr int kFirstVersion = 10900;
  if (version >= kFirstVersion) return mxnet::ext::MX_SUCCESS;
  fastrnn::operators::SetMessage("fastrnn needs MXNet 1.9 or later, this is version number " +
                                 std::to_string(version));
  return mxnet::ext::MX_FAIL;
}
