// The MXNet operator _fastrnn_layer: one recurrent layer, both directions inside.
//
// Attributes: mode (lstm, gru, rnn_tanh, rnn_relu), hidden_size, num_directions (1, 2), reserve
// (0, 1). Without a reserve there is no backward.
//
// Inputs:
//   data        [T, N, I]
//   state       [D, N, H]
//   state_cell  [D, N, H], LSTM only
//   and for each direction
//   i2h_weight  [G*H, I]
//   h2h_weight  [G*H, H]
//   i2h_bias    [G*H]
//   h2h_bias    [G*H]
//
// Outputs:
//   output      [T, N, D*H]
//   state       [D, N, H]
//   state_cell  [D, N, H], LSTM only
//   reserve     where it was asked for; nobody but backward reads it
//
// The operator overwrites its outputs: lib_api does not tell it whether to add. Whoever uses it
// puts an operator of MXNet's own between it and every array whose gradient may be accumulated.
#include <mxnet/lib_api.h>

#include <cstdlib>
#include <limits>
#include <string>
#include <unordered_map>
#include <vector>

#include "../error.h"
#include "../rnn.h"

namespace {

using fastrnn::LayerDesc;
using fastrnn::Mode;
using mxnet::ext::MXReturnValue;
using mxnet::ext::MXTensor;
using mxnet::ext::OpResource;
using Attributes = std::unordered_map<std::string, std::string>;
using Shape = std::vector<unsigned int>;
using Shapes = std::vector<Shape>;

constexpr unsigned int kUnknown = std::numeric_limits<unsigned int>::max();
constexpr int kUnknownType = -1;
constexpr int kWeightsPerDirection = 4;

const std::string& Attribute(const Attributes& attributes, const std::string& name) {
  const auto found = attributes.find(name);
  FASTRNN_EXPECTS(found != attributes.end(), "_fastrnn_layer needs the attribute " + name);
  return found->second;
}

int64_t IntegerAttribute(const Attributes& attributes, const std::string& name, int64_t low,
                         int64_t high) {
  const std::string& text = Attribute(attributes, name);
  char* end = nullptr;
  const int64_t value = std::strtoll(text.c_str(), &end, 10);
  FASTRNN_EXPECTS(!text.empty() && *end == '\0' && value >= low && value <= high,
                  "_fastrnn_layer: " + name + " is '" + text + "', expected an integer from " +
                      std::to_string(low) + " to " + std::to_string(high));
  return value;
}

LayerDesc ParseDesc(const Attributes& attributes) {
  LayerDesc desc;
  desc.mode = fastrnn::ParseMode(Attribute(attributes, "mode"));
  desc.hidden = IntegerAttribute(attributes, "hidden_size", 1, std::numeric_limits<int>::max() / 4);
  desc.directions = IntegerAttribute(attributes, "num_directions", 1, fastrnn::kMaxDirections);
  desc.reserve = IntegerAttribute(attributes, "reserve", 0, 1) == 1;
  return desc;
}

// Positions of the operator's inputs and outputs.
struct Positions {
  int inputs, outputs, first_weight;
  explicit Positions(const LayerDesc& desc) {
    first_weight = desc.has_cell() ? 3 : 2;
    inputs = first_weight + kWeightsPerDirection * static_cast<int>(desc.directions);
    outputs = first_weight + (desc.reserve ? 1 : 0);
  }
};

std::string InputName(const LayerDesc& desc, int index) {
  static const char* const kWeights[] = {"i2h_weight", "h2h_weight", "i2h_bias", "h2h_bias"};
  const int weight = index - Positions(desc).first_weight;
  if (weight >= 0) {
    return std::string(weight < kWeightsPerDirection ? "l_" : "r_") +
           kWeights[weight % kWeightsPerDirection];
  }
  return index == 0 ? "data" : index == 1 ? "state" : "state_cell";
}

std::string ToString(const Shape& shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i) {
    text +=
        (i > 0 ? ", " : "") + (shape[i] == kUnknown ? std::string("?") : std::to_string(shape[i]));
  }
  return text + (shape.size() == 1 ? ",)" : ")");
}

// An exception must not cross into MXNet; its message becomes the MXNetError's.
template <class Call>
MXReturnValue Guard(Call call) {
  try {
    call();
    return mxnet::ext::MX_SUCCESS;
  } catch (const std::exception& e) {
    MX_ERROR_MSG << e.what();
    return mxnet::ext::MX_FAIL;
  }
}

MXReturnValue ParseAttributes(const Attributes& attributes, int* num_inputs, int* num_outputs) {
  return Guard([&] {
    const Positions positions(ParseDesc(attributes));
    *num_inputs = positions.inputs;
    *num_outputs = positions.outputs;
  });
}

MXReturnValue InferType(const Attributes& attributes, std::vector<int>* inputs,
                        std::vector<int>* outputs) {
  return Guard([&] {
    const LayerDesc desc = ParseDesc(attributes);
    for (size_t i = 0; i < inputs->size(); ++i) {
      int& type = (*inputs)[i];
      FASTRNN_EXPECTS(type == mxnet::ext::kFloat32 || type == kUnknownType,
                      "_fastrnn_layer: " + InputName(desc, static_cast<int>(i)) +
                          " has MXNet's type number " + std::to_string(type) +
                          ", expected float32 (0)");
      type = mxnet::ext::kFloat32;
    }
    for (int& type : *outputs) type = mxnet::ext::kFloat32;
  });
}

// Two statements about one dimension; either may be unknown.
void Merge(const std::string& name, const Shape& whole, unsigned int* known, unsigned int other) {
  if (*known == kUnknown) *known = other;
  FASTRNN_EXPECTS(other == kUnknown || other == *known,
                  "_fastrnn_layer: " + name + " has shape " + ToString(whole) + ", expected " +
                      std::to_string(*known) + " in place of " + std::to_string(other));
}

void MergeShape(const std::string& name, Shape* shape, const Shape& expected) {
  if (shape->empty()) *shape = Shape(expected.size(), kUnknown);
  FASTRNN_EXPECTS(shape->size() == expected.size(), "_fastrnn_layer: " + name + " has shape " +
                                                        ToString(*shape) + ", expected " +
                                                        ToString(expected));
  const Shape whole = *shape;
  for (size_t i = 0; i < expected.size(); ++i) {
    unsigned int merged = expected[i];
    Merge(name, whole, &merged, whole[i]);
    (*shape)[i] = merged;
  }
}

MXReturnValue InferShape(const Attributes& attributes, Shapes* inputs, Shapes* outputs) {
  return Guard([&] {
    const LayerDesc desc = ParseDesc(attributes);
    const Positions positions(desc);
    const auto H = static_cast<unsigned int>(desc.hidden);
    const auto D = static_cast<unsigned int>(desc.directions);
    const auto GH = static_cast<unsigned int>(desc.gate_rows());
    Shape& data = (*inputs)[0];
    MergeShape("data", &data, {kUnknown, kUnknown, kUnknown});
    for (int i = 1; i < positions.first_weight;
         ++i) {  // A batch size may be known from a state alone.
      if ((*inputs)[i].size() == 3)
        Merge(InputName(desc, i), (*inputs)[i], &data[1], (*inputs)[i][1]);
    }
    for (int i = positions.first_weight; i < positions.inputs; i += kWeightsPerDirection) {
      if ((*inputs)[i].size() == 2)
        Merge(InputName(desc, i), (*inputs)[i], &data[2], (*inputs)[i][1]);
    }
    const Shape state = {D, data[1], H};
    const Shape weights[] = {{GH, data[2]}, {GH, H}, {GH}, {GH}};
    for (int i = 1; i < positions.inputs; ++i) {
      const int weight = i - positions.first_weight;
      MergeShape(InputName(desc, i), &(*inputs)[i],
                 weight < 0 ? state : weights[weight % kWeightsPerDirection]);
    }
    (*outputs)[0] = {data[0], data[1], D * H};
    for (int i = 1; i < positions.first_weight; ++i) (*outputs)[i] = state;
    if (desc.reserve) {
      // A dimension of 0 would mean "unknown", so an empty reserve has one value a direction.
      const auto words = static_cast<unsigned int>(fastrnn::ReserveWords(desc.mode, desc.dtype));
      outputs->back() = words > 0 ? Shape{D, data[0], data[1], words * H} : Shape{D, 1, 1, 1};
    }
  });
}

fastrnn::Device DeviceOf(const MXTensor& tensor) {
  return tensor.ctx.dev_type == "gpu" ? fastrnn::Device::kCuda : fastrnn::Device::kCpu;
}

void SetSizes(LayerDesc* desc, const MXTensor& data) {
  desc->device = DeviceOf(data);
  desc->steps = data.shape.at(0);
  desc->batch = data.shape.at(1);
  desc->input = data.shape.at(2);
}

fastrnn::Weights WeightsAt(std::vector<MXTensor>* tensors, int first) {
  auto at = [&](int i) { return (*tensors)[first + i].data<float>(); };
  return {at(0), at(1), at(2), at(3)};
}

// MXNet hands out one shared chunk per call, of a size that it takes as int.
void* Workspace(const OpResource& resource, size_t bytes) {
  const size_t padded = bytes + fastrnn::kWorkspaceAlignment;
  FASTRNN_EXPECTS(padded <= static_cast<size_t>(std::numeric_limits<int>::max()),
                  "_fastrnn_layer: a workspace of " + std::to_string(bytes) +
                      " bytes is needed, and MXNet grants less than 2 GiB: use a smaller batch");
  const auto address = reinterpret_cast<uintptr_t>(resource.alloc_cpu(static_cast<int>(padded)));
  FASTRNN_EXPECTS(address != 0, "_fastrnn_layer: MXNet granted no workspace");
  const uintptr_t mask = fastrnn::kWorkspaceAlignment - 1;
  return reinterpret_cast<void*>((address + mask) & ~mask);
}

MXReturnValue Forward(const Attributes& attributes, std::vector<MXTensor>* inputs,
                      std::vector<MXTensor>* outputs, const OpResource& resource) {
  return Guard([&] {
    LayerDesc desc = ParseDesc(attributes);
    const Positions positions(desc);
    SetSizes(&desc, (*inputs)[0]);
    fastrnn::ForwardArgs args;
    args.x = (*inputs)[0].data<float>();
    args.h0 = (*inputs)[1].data<float>();
    args.y = (*outputs)[0].data<float>();
    args.hn = (*outputs)[1].data<float>();
    if (desc.has_cell()) {
      args.c0 = (*inputs)[2].data<float>();
      args.cn = (*outputs)[2].data<float>();
    }
    if (desc.reserve) args.reserve = outputs->back().data<float>();
    for (int d = 0; d < desc.directions; ++d) {
      args.weights[d] = WeightsAt(inputs, positions.first_weight + d * kWeightsPerDirection);
    }
    args.workspace = Workspace(resource, fastrnn::ForwardWorkspaceBytes(desc));
    fastrnn::Forward(desc, args);
  });
}

// MXNet passes the gradients of the outputs, then the inputs, then the outputs; it wants the
// gradients of the inputs.
MXReturnValue Backward(const Attributes& attributes, std::vector<MXTensor>* tensors,
                       std::vector<MXTensor>* gradients, const OpResource& resource) {
  return Guard([&] {
    LayerDesc desc = ParseDesc(attributes);
    const Positions positions(desc);
    FASTRNN_EXPECTS(desc.reserve,
                    "_fastrnn_layer has no gradient with reserve=0: it kept nothing for one");
    const int inputs = positions.outputs, outputs = inputs + positions.inputs;
    auto at = [&](int i) { return (*tensors)[i].data<float>(); };
    SetSizes(&desc, (*tensors)[inputs]);
    fastrnn::BackwardArgs args;
    args.dy = at(0);
    args.dhn = at(1);
    args.x = at(inputs);
    args.h0 = at(inputs + 1);
    args.y = at(outputs);
    args.reserve = at(outputs + positions.outputs - 1);
    args.dx = (*gradients)[0].data<float>();
    args.dh0 = (*gradients)[1].data<float>();
    if (desc.has_cell()) {
      args.dcn = at(2);
      args.c0 = at(inputs + 2);
      args.dc0 = (*gradients)[2].data<float>();
    }
    for (int d = 0; d < desc.directions; ++d) {
      const int first = positions.first_weight + d * kWeightsPerDirection;
      args.weights[d] = WeightsAt(tensors, inputs + first);
      auto out = [&](int i) { return (*gradients)[first + i].data<float>(); };
      args.gradients[d] = {out(0), out(1), out(2), out(3)};
    }
    args.workspace = Workspace(resource, fastrnn::BackwardWorkspaceBytes(desc));
    fastrnn::Backward(desc, args);
  });
}

}  // namespace

REGISTER_OP(_fastrnn_layer)
    .setParseAttrs(ParseAttributes)
    .setInferType(InferType)
    .setInferShape(InferShape)
    .setForward(Forward, "cpu")
    .setBackward(Backward, "cpu");

// MXNet asks whether the library runs with its version.
MXReturnValue initialize(int version) {
  constexpr int kFirstVersion = 10900;
  if (version >= kFirstVersion) return mxnet::ext::MX_SUCCESS;
  MX_ERROR_MSG << "fastrnn needs MXNet 1.9 or later, this is version number " << version;
  return mxnet::ext::MX_FAIL;
}
