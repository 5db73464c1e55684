#include "kernels.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "../error.h"
#include "../rnn.h"
#include "results.h"
#include "tensor.h"

namespace py = pybind11;

namespace fastrnn {
namespace python {
namespace {

constexpr int64_t kWeightsPerDirection = 4;

// ---- what Python passes -------------------------------------------------------------------------

// A state or the gradient of one: given, or zeros. No pointer, if the cell has no such state.
class State {
 public:
  static State Read(const LayerDesc& desc, const Tensor& x, const std::string& name,
                    const py::object& object, void* stream) {
    State state;
    const Shape shape = {desc.directions, desc.batch, desc.hidden};
    if (object.is_none()) {
      state.zeros_ = Zeros(x.place(), stream, shape, desc.dtype);
      state.data_ = state.zeros_->data();
      return state;
    }
    state.given_.emplace(name, object, stream);
    state.given_->ExpectPlaceOf(x);
    state.given_->ExpectType(Name(desc.dtype));
    state.given_->ExpectShape(shape);
    state.data_ = state.given_->data();
    return state;
  }
  // For what only an LSTM has.
  static State ReadCell(const LayerDesc& desc, const Tensor& x, const std::string& name,
                        const py::object& object, void* stream) {
    if (desc.has_cell()) return Read(desc, x, name, object, stream);
    FASTRNN_EXPECTS(object.is_none(), name + " was given, but only an lstm has a cell state");
    return {};
  }
  const void* data() const { return data_; }
  // The array, if it was given.
  void AddTo(std::vector<const Tensor*>* tensors) const {
    if (given_) tensors->push_back(&*given_);
  }

 private:
  std::optional<Tensor> given_;
  std::unique_ptr<Workspace> zeros_;
  const void* data_ = nullptr;
};

// What forward and backward both take, checked.
struct Inputs {
  LayerDesc desc;
  void* stream;
  Tensor x;
  std::vector<Tensor> weights;  // i2h_weight, h2h_weight, i2h_bias, h2h_bias for each direction
  State h0, c0;
  std::optional<Tensor> lengths;

  Inputs(const py::object& mode, const py::object& x_object, const py::object& h0_object,
         const py::object& c0_object, const py::object& weight_objects,
         const py::object& lengths_object, std::optional<bool> tf32,
         const std::optional<std::string>& algorithm, bool reserve, intptr_t stream_number)
      : stream(reinterpret_cast<void*>(stream_number)), x("x", x_object, stream) {
    if (!py::isinstance<py::str>(mode)) ThrowTypeError("mode", mode, "a string");
    desc.mode = ParseMode(mode.cast<std::string>());
    desc.dtype = x.LayerType();
    desc.device = x.place().device;
    desc.device_index = x.place().index;
    desc.tf32 = tf32.value_or(DefaultTf32());
    desc.algorithm = algorithm ? ParseAlgorithm("algorithm", *algorithm) : DefaultAlgorithm();
    desc.reserve = reserve;
    FASTRNN_EXPECTS(stream == nullptr || desc.device == Device::kCuda,
                    "stream was given, but x is on the CPU");
    x.ExpectRank(3);
    desc.steps = x.size(0);
    desc.batch = x.size(1);
    desc.input = x.size(2);
    ReadWeights(weight_objects);
    h0 = State::Read(desc, x, "h_0", h0_object, stream);
    c0 = State::ReadCell(desc, x, "c_0", c0_object, stream);
    if (!lengths_object.is_none()) ReadLengths(lengths_object);
  }

  const int32_t* lengths_data() const {
    return lengths ? static_cast<const int32_t*>(lengths->data()) : nullptr;
  }

  // All arrays that are read.
  std::vector<const Tensor*> tensors() const {
    std::vector<const Tensor*> all = {&x};
    for (const Tensor& weight : weights) all.push_back(&weight);
    h0.AddTo(&all);
    c0.AddTo(&all);
    if (lengths) all.push_back(&*lengths);
    return all;
  }

  Weights WeightsOf(int64_t direction) const {
    auto at = [&](int64_t i) { return weights[kWeightsPerDirection * direction + i].data(); };
    return {at(0), at(1), at(2), at(3)};
  }

 private:
  // Their number tells D, and h2h_weight H.
  void ReadWeights(const py::object& object) {
    static const char* const kNames[] = {"i2h_weight", "h2h_weight", "i2h_bias", "h2h_bias"};
    if (!py::isinstance<py::sequence>(object)) {
      ThrowTypeError("weights", object, "a sequence of arrays");
    }
    const auto objects = py::reinterpret_borrow<py::sequence>(object);
    FASTRNN_EXPECTS(objects.size() == 4 || objects.size() == 8,
                    "weights has " + std::to_string(objects.size()) +
                        " arrays, expected 4 or 8: four for each direction");
    for (size_t i = 0; i < objects.size(); ++i) {
      weights.emplace_back("weights[" + std::to_string(i) + "] (" + kNames[i % 4] + ")",
                           py::object(objects[i]), stream);
      weights.back().ExpectPlaceOf(x);
      weights.back().ExpectType(Name(desc.dtype));
    }
    weights[1].ExpectRank(2);
    desc.directions = static_cast<int64_t>(objects.size()) / kWeightsPerDirection;
    desc.hidden = weights[1].size(1);
    Validate(desc);
    for (size_t i = 0; i < weights.size(); i += kWeightsPerDirection) {
      weights[i].ExpectShape({desc.gate_rows(), desc.input});
      weights[i + 1].ExpectShape({desc.gate_rows(), desc.hidden});
      weights[i + 2].ExpectShape({desc.gate_rows()});
      weights[i + 3].ExpectShape({desc.gate_rows()});
    }
  }

  void ReadLengths(const py::object& object) {
    lengths.emplace("lengths", object, stream);
    lengths->ExpectPlaceOf(x);
    lengths->ExpectType("int32");
    lengths->ExpectShape({desc.batch});
  }
};

Shape OutputShape(const LayerDesc& desc) {
  return {desc.steps, desc.batch, desc.directions * desc.hidden};
}

Shape StateShape(const LayerDesc& desc) { return {desc.directions, desc.batch, desc.hidden}; }

// The reserve is given out as words of 4 bytes.
int64_t ReserveWordsOf(const LayerDesc& desc) {
  return static_cast<int64_t>(ReserveBytes(desc) / 4);
}

// ---- the calls ----------------------------------------------------------------------------------

py::list ForwardArrays(const py::object& mode, const py::object& x, const py::object& h0,
                       const py::object& c0, const py::object& weights, const py::object& lengths,
                       std::optional<bool> tf32, const std::optional<std::string>& algorithm,
                       bool reserve, const py::object& out, intptr_t stream) {
  const Inputs in(mode, x, h0, c0, weights, lengths, tf32, algorithm, reserve, stream);
  const LayerDesc& desc = in.desc;
  Results results(in.x.place(), in.stream, out);
  ForwardArgs args;
  args.stream = in.stream;
  args.x = in.x.data();
  args.lengths = in.lengths_data();
  args.h0 = in.h0.data();
  args.c0 = in.c0.data();
  for (int64_t d = 0; d < desc.directions; ++d) args.weights[d] = in.WeightsOf(d);
  args.y = results.Add("output", OutputShape(desc), desc.dtype);
  args.hn = results.Add("h_n", StateShape(desc), desc.dtype);
  if (desc.has_cell()) {
    args.cn = results.Add("c_n", StateShape(desc), desc.dtype);
  } else {
    results.AddNone();
  }
  if (reserve) {
    args.reserve = results.Add("reserve.values", {ReserveWordsOf(desc)}, DType::kFloat32);
  } else {
    results.AddNone();
  }
  results.ExpectApartFrom(in.tensors());
  const auto publish = [&] { return results.Publish({x, h0, c0, lengths}, weights); };
  try {
    py::gil_scoped_release release;
    const Workspace workspace(in.x.place(), ForwardWorkspaceBytes(desc), in.stream);
    args.workspace = workspace.data();
    Forward(desc, args);
  } catch (...) {
    publish();  // A part of the work may be on its way.
    throw;
  }
  return publish();
}

// What a forward call with reserve returned, and the gradients of its outputs.
struct OutputGradients {
  Tensor y, reserve, dy;
  State dhn, dcn;

  OutputGradients(const Inputs& in, const py::object& y_object, const py::object& reserve_object,
                  const py::object& dy_object, const py::object& dhn_object,
                  const py::object& dcn_object)
      : y("output", y_object, in.stream),
        reserve("reserve", reserve_object, in.stream),
        dy("d_output", dy_object, in.stream),
        dhn(State::Read(in.desc, in.x, "d_h_n", dhn_object, in.stream)),
        dcn(State::ReadCell(in.desc, in.x, "d_c_n", dcn_object, in.stream)) {
    const LayerDesc& desc = in.desc;
    for (const Tensor* tensor : {&y, &dy}) {
      tensor->ExpectPlaceOf(in.x);
      tensor->ExpectType(Name(desc.dtype));
      tensor->ExpectShape({desc.steps, desc.batch, desc.directions * desc.hidden});
    }
    reserve.ExpectPlaceOf(in.x);
    reserve.ExpectType("float32");
    reserve.ExpectShape({ReserveWordsOf(desc)});
  }

  void AddTo(std::vector<const Tensor*>* tensors) const {
    for (const Tensor* tensor : {&y, &reserve, &dy}) tensors->push_back(tensor);
    dhn.AddTo(tensors);
    dcn.AddTo(tensors);
  }
};

py::list BackwardArrays(const py::object& mode, const py::object& x, const py::object& h0,
                        const py::object& c0, const py::object& weights, const py::object& lengths,
                        std::optional<bool> tf32, const std::optional<std::string>& algorithm,
                        const py::object& y, const py::object& reserve, const py::object& dy,
                        const py::object& dhn, const py::object& dcn, const py::object& written,
                        intptr_t stream) {
  const Inputs in(mode, x, h0, c0, weights, lengths, tf32, algorithm, true, stream);
  const LayerDesc& desc = in.desc;
  const OutputGradients out(in, y, reserve, dy, dhn, dcn);
  Results results(in.x.place(), in.stream, written);
  BackwardArgs args;
  args.stream = in.stream;
  args.x = in.x.data();
  args.lengths = in.lengths_data();
  args.h0 = in.h0.data();
  args.c0 = in.c0.data();
  args.y = out.y.data();
  args.reserve = out.reserve.data();
  args.dy = out.dy.data();
  args.dhn = out.dhn.data();
  args.dcn = out.dcn.data();
  args.dx = results.Add("x", {desc.steps, desc.batch, desc.input}, desc.dtype);
  args.dh0 = results.Add("h_0", StateShape(desc), desc.dtype);
  if (desc.has_cell()) {
    args.dc0 = results.Add("c_0", StateShape(desc), desc.dtype);
  } else {
    results.AddNone();
  }
  for (int64_t d = 0; d < desc.directions; ++d) {
    const auto add = [&](int64_t index, const Shape& shape) {
      return results.Add("weights[" + std::to_string(4 * d + index) + "]", shape, desc.dtype);
    };
    args.weights[d] = in.WeightsOf(d);
    args.gradients[d].i2h_weight = add(0, {desc.gate_rows(), desc.input});
    args.gradients[d].h2h_weight = add(1, {desc.gate_rows(), desc.hidden});
    args.gradients[d].i2h_bias = add(2, {desc.gate_rows()});
    args.gradients[d].h2h_bias = add(3, {desc.gate_rows()});
  }
  std::vector<const Tensor*> read = in.tensors();
  out.AddTo(&read);
  results.ExpectApartFrom(read);
  const auto publish = [&] {
    return results.Publish({x, h0, c0, lengths, y, reserve, dy, dhn, dcn}, weights);
  };
  try {
    py::gil_scoped_release release;
    const Workspace workspace(in.x.place(), BackwardWorkspaceBytes(desc), in.stream);
    args.workspace = workspace.data();
    Backward(desc, args);
  } catch (...) {
    publish();  // As in forward.
    throw;
  }
  return publish();
}

}  // namespace

void DefineKernels(py::module_* m) {
  m->def("forward", &ForwardArrays, py::arg("mode"), py::arg("x"), py::arg("h_0"), py::arg("c_0"),
         py::arg("weights"), py::arg("lengths"), py::arg("tf32"), py::arg("algorithm"),
         py::arg("reserve"), py::arg("out"), py::arg("stream"));
  m->def("backward", &BackwardArrays, py::arg("mode"), py::arg("x"), py::arg("h_0"), py::arg("c_0"),
         py::arg("weights"), py::arg("lengths"), py::arg("tf32"), py::arg("algorithm"),
         py::arg("output"), py::arg("reserve"), py::arg("d_output"), py::arg("d_h_n"),
         py::arg("d_c_n"), py::arg("out"), py::arg("stream"));
}

}  // namespace python
}  // namespace fastrnn
