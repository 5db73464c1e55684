#include "kernels.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "../../error.h"
#include "../../noise.h"
#include "../../parameters.h"
#include "../../rnn.h"
#include "results.h"
#include "tensor.h"

namespace py = pybind11;

namespace fastrnn {
namespace python {
namespace {

Shape HiddenShape(const Layers& desc) {
  return {desc.layers * desc.directions, desc.batch, desc.outputs()};
}

Shape CellShape(const Layers& desc) {
  return {desc.layers * desc.directions, desc.batch, desc.hidden};
}

Shape OutputShape(const LayerDesc& desc) {
  return {desc.steps, desc.batch, desc.directions * desc.outputs()};
}

Shape ShapeOf(const Parameter& parameter) {
  if (parameter.columns == 0) return {parameter.rows};
  return {parameter.rows, parameter.columns};
}

// ---- arguments ----------------------------------------------------------------------------------

// A state or its gradient: the caller's, or zeros. Null if the cell has no such state.
class State {
 public:
  static State Read(const Layers& desc, const Tensor& x, const char* name, const py::object& object,
                    const Shape& shape, void* stream) {
    State state;
    if (object.is_none()) {
      state.zeros_ = Zeros(x.place(), stream, shape, desc.dtype);
      state.data_ = state.zeros_->data();
      return state;
    }
    state.given_.emplace(name, object, stream);
    state.given_->ExpectPlaceOf(x);
    state.given_->ExpectType(desc.dtype);
    state.given_->ExpectShape(shape);
    state.data_ = state.given_->data();
    return state;
  }
  static State ReadHidden(const Layers& desc, const Tensor& x, const char* name,
                          const py::object& object, void* stream) {
    return Read(desc, x, name, object, HiddenShape(desc), stream);
  }
  // For the cell state, which only an LSTM has.
  static State ReadCell(const Layers& desc, const Tensor& x, const char* name,
                        const py::object& object, void* stream) {
    if (desc.has_c()) return Read(desc, x, name, object, CellShape(desc), stream);
    FASTRNN_EXPECTS(object.is_none(),
                    std::string(name) + " was given, but only an lstm has a cell state");
    return {};
  }
  const void* data() const { return data_; }
  // Adds the array if the caller passed it.
  void AddTo(std::vector<const Tensor*>* tensors) const {
    if (given_) tensors->push_back(&*given_);
  }

 private:
  std::optional<Tensor> given_;
  std::unique_ptr<Workspace> zeros_;
  const void* data_ = nullptr;
};

// The arguments of both forward and backward, checked.
struct Inputs {
  Layers desc;
  void* stream;
  Tensor x;
  std::vector<Tensor> weights;  // each layer's and direction's ParametersOf
  std::shared_ptr<const Plan> plan;
  State h0, c0;
  std::optional<Tensor> lengths, seed;

  Inputs(const py::object& mode, const py::object& x_object, const py::object& h0_object,
         const py::object& c0_object, const py::object& weight_objects, int64_t layers,
         const py::object& lengths_object, bool projected, const ClipArgument& clip,
         const NoiseArgument& noise, const py::object& seed_object, bool layer_norm,
         std::optional<bool> tf32, const std::optional<std::string>& algorithm, bool reserve,
         std::optional<int> threads, intptr_t stream_number)
      : stream(reinterpret_cast<void*>(stream_number)), x("x", x_object, stream) {
    if (!py::isinstance<py::str>(mode)) ThrowTypeError("mode", mode, "a string");
    desc.mode = ParseMode(mode.cast<std::string>());
    desc.dtype = x.LayerType();
    desc.device = x.place().device;
    desc.device_index = x.place().index;
    desc.tf32 = WithoutOverruledTf32(tf32.value_or(DefaultTf32()));
    desc.algorithm = algorithm ? ParseAlgorithm("algorithm", *algorithm) : DefaultAlgorithm();
    desc.clip = ClipOf(clip);
    desc.noise = NoiseOf(noise);
    if (seed_object.is_none()) desc.noise.drop_states = 0;  // nothing is dropped
    desc.layer_norm = layer_norm;
    desc.reserve = reserve;
    FASTRNN_EXPECTS(!threads || *threads > 0,
                    "threads is " + std::to_string(*threads) + ", expected 1 or more");
    desc.threads = threads.value_or(0);
    FASTRNN_EXPECTS(stream == nullptr || desc.device == Device::kCuda,
                    "stream was given, but x is on the CPU");
    x.ExpectRank(3);
    desc.steps = x.size(0);
    desc.batch = x.size(1);
    desc.input = x.size(2);
    desc.layers = layers;
    ReadWeights(weight_objects, projected);
    {
      const py::gil_scoped_release release;  // A new plan may take a while.
      plan = MakePlan(desc);
    }
    h0 = State::ReadHidden(desc, x, "h_0", h0_object, stream);
    c0 = State::ReadCell(desc, x, "c_0", c0_object, stream);
    if (!lengths_object.is_none()) ReadLengths(lengths_object);
    if (!seed_object.is_none()) ReadSeed(seed_object);
  }

  const int32_t* lengths_data() const {
    return lengths ? static_cast<const int32_t*>(lengths->data()) : nullptr;
  }

  const float* seed_data() const {
    return seed ? static_cast<const float*>(seed->data()) : nullptr;
  }

  // All arrays that the call reads.
  std::vector<const Tensor*> tensors() const {
    std::vector<const Tensor*> all = {&x};
    for (const Tensor& weight : weights) all.push_back(&weight);
    h0.AddTo(&all);
    c0.AddTo(&all);
    if (lengths) all.push_back(&*lengths);
    if (seed) all.push_back(&*seed);
    return all;
  }

  std::vector<Weights> weight_pointers() const {
    const std::vector<Parameter> parameters = ParametersOf(desc);
    std::vector<Weights> all(weights.size() / parameters.size());
    auto weight = weights.begin();
    for (Weights& direction : all) {
      for (const Parameter& parameter : parameters) {
        direction.*parameter.weight = (weight++)->data();
      }
    }
    return all;
  }

 private:
  // The number of weights gives D for L layers; the first h2h_weight gives H and P.
  void ReadWeights(const py::object& object, bool projected) {
    if (!py::isinstance<py::sequence>(object)) {
      ThrowTypeError("weights", object, "a sequence of arrays");
    }
    const auto objects = py::reinterpret_borrow<py::sequence>(object);
    desc.projection = projected ? 1 : 0;  // the size follows from the weights
    ValidateOptions(desc);                // the number of weights depends on them
    const std::vector<Parameter> parameters = ParametersOf(desc);
    const auto per_direction = static_cast<int64_t>(parameters.size());
    ExpectWeightCount(static_cast<int64_t>(objects.size()), per_direction);
    for (size_t i = 0; i < objects.size(); ++i) {
      const char* const note = parameters[i % parameters.size()].name;
      weights.emplace_back(ArgumentName("weights", static_cast<int64_t>(i), note),
                           py::object(objects[i]), stream);
      weights.back().ExpectPlaceOf(x);
      weights.back().ExpectType(desc.dtype);
    }
    weights[1].ExpectRank(2);
    desc.directions = static_cast<int64_t>(objects.size()) / per_direction / desc.layers;
    desc.hidden = projected ? weights[1].size(0) / desc.cell().gates : weights[1].size(1);
    if (projected) {
      desc.projection = weights[1].size(1);
      FASTRNN_EXPECTS(desc.projection > 0, "projection size is 0, expected 1 or more");
    }
    Validate(desc);
    auto weight = weights.begin();
    for (int64_t direction = 0; direction < desc.layers * desc.directions; ++direction) {
      for (const Parameter& parameter : ParametersOf(desc.At(direction / desc.directions))) {
        (weight++)->ExpectShape(ShapeOf(parameter));
      }
    }
  }

  void ExpectWeightCount(int64_t count, int64_t per_direction) const {
    const int64_t wanted = desc.layers * per_direction;
    FASTRNN_EXPECTS(count == wanted || count == 2 * wanted,
                    "weights has " + std::to_string(count) + " arrays, expected " +
                        std::to_string(wanted) + " or " + std::to_string(2 * wanted) + ": " +
                        std::to_string(per_direction) + " for each of " +
                        std::to_string(desc.layers) + " layer(s) and each direction");
  }

  void ReadLengths(const py::object& object) {
    lengths.emplace("lengths", object, stream);
    lengths->ExpectPlaceOf(x);
    lengths->ExpectInt32();
    lengths->ExpectShape({desc.batch});
  }

  void ReadSeed(const py::object& object) {
    FASTRNN_EXPECTS(desc.noise.any(), "seed was given, but noise has no rate above 0");
    seed.emplace("seed", object, stream);
    seed->ExpectPlaceOf(x);
    seed->ExpectType(DType::kFloat32);
    seed->ExpectShape({kSeedBits});
    if (desc.device == Device::kCpu) ExpectBits(static_cast<const float*>(seed->data()));
  }

  // Others would all stand for a one.
  static void ExpectBits(const float* numbers) {
    const bool draws = numbers[0] != 1.0f;
    for (int bit = 0; bit < kSeedBits; ++bit) {
      const float number = numbers[bit];
      FASTRNN_EXPECTS(draws ? number == 0.0f || number == 2.0f : number == 1.0f,
                      "seed[" + std::to_string(bit) + "] is " + std::to_string(number) +
                          ", expected numbers that are 0 or 2, or ones alone");
    }
  }
};

// The reserve is an array of words of 4 bytes.
int64_t ReserveValues(const Plan& plan) { return static_cast<int64_t>(plan.reserve_bytes() / 4); }

// ---- the calls ----------------------------------------------------------------------------------

py::list RunForward(const py::object& mode, const py::object& x, const py::object& h0,
                    const py::object& c0, const py::object& weights, int64_t layers,
                    const py::object& lengths, bool projected, const ClipArgument& clip,
                    const NoiseArgument& noise, const py::object& seed, bool layer_norm,
                    std::optional<bool> tf32, const std::optional<std::string>& algorithm,
                    bool reserve, const py::object& out, std::optional<int> threads,
                    intptr_t stream) {
  const Inputs in(mode, x, h0, c0, weights, layers, lengths, projected, clip, noise, seed,
                  layer_norm, tf32, algorithm, reserve, threads, stream);
  const Layers& desc = in.desc;
  const auto& plan = in.plan;
  Results results(in.x.place(), in.stream, out);
  ForwardArrays args;
  args.x = in.x.data();
  args.lengths = in.lengths_data();
  args.seed = in.seed_data();
  args.h0 = in.h0.data();
  args.c0 = in.c0.data();
  const std::vector<Weights> parameters = in.weight_pointers();
  args.weights = parameters.data();
  args.y = results.Add("output", OutputShape(desc), desc.dtype);
  args.hn = results.Add("h_n", HiddenShape(desc), desc.dtype);
  if (desc.has_c()) {
    args.cn = results.Add("c_n", CellShape(desc), desc.dtype);
  } else {
    results.AddNone();
  }
  if (reserve) {
    args.reserve = results.Add("reserve.values", {ReserveValues(*plan)}, DType::kFloat32);
  } else {
    results.AddNone();
  }
  results.ExpectApartFrom(in.tensors());
  const auto publish = [&] { return results.Publish({x, h0, c0, lengths, seed}, weights); };
  try {
    py::gil_scoped_release release;
    const Workspace workspace(in.x.place(), plan->workspace_bytes(Pass::kForward), in.stream);
    args.workspace = workspace.data();
    args.stream = in.stream;
    plan->Forward(args);
  } catch (...) {
    publish();  // A part of the work may have been enqueued.
    throw;
  }
  return publish();
}

// The results of a forward call with reserve, and the gradients of its outputs.
struct OutputGradients {
  Tensor y, reserve, dy;
  State dhn, dcn;

  OutputGradients(const Inputs& in, const py::object& y_object, const py::object& reserve_object,
                  const py::object& dy_object, const py::object& dhn_object,
                  const py::object& dcn_object)
      : y("output", y_object, in.stream),
        reserve("reserve", reserve_object, in.stream),
        dy("d_output", dy_object, in.stream),
        dhn(State::ReadHidden(in.desc, in.x, "d_h_n", dhn_object, in.stream)),
        dcn(State::ReadCell(in.desc, in.x, "d_c_n", dcn_object, in.stream)) {
    const LayerDesc& desc = in.desc;
    for (const Tensor* tensor : {&y, &dy}) {
      tensor->ExpectPlaceOf(in.x);
      tensor->ExpectType(desc.dtype);
      tensor->ExpectShape(OutputShape(desc));
    }
    reserve.ExpectPlaceOf(in.x);
    reserve.ExpectType(DType::kFloat32);
    reserve.ExpectShape({ReserveValues(*in.plan)});
  }

  void AddTo(std::vector<const Tensor*>* tensors) const {
    for (const Tensor* tensor : {&y, &reserve, &dy}) tensors->push_back(tensor);
    dhn.AddTo(tensors);
    dcn.AddTo(tensors);
  }
};

py::list RunBackward(const py::object& mode, const py::object& x, const py::object& h0,
                     const py::object& c0, const py::object& weights, int64_t layers,
                     const py::object& lengths, bool projected, const ClipArgument& clip,
                     const NoiseArgument& noise, const py::object& seed, bool layer_norm,
                     std::optional<bool> tf32, const std::optional<std::string>& algorithm,
                     const py::object& y, const py::object& reserve, const py::object& dy,
                     const py::object& dhn, const py::object& dcn, const py::object& written,
                     std::optional<int> threads, intptr_t stream) {
  const Inputs in(mode, x, h0, c0, weights, layers, lengths, projected, clip, noise, seed,
                  layer_norm, tf32, algorithm, true, threads, stream);
  const Layers& desc = in.desc;
  const OutputGradients out(in, y, reserve, dy, dhn, dcn);
  Results results(in.x.place(), in.stream, written);
  BackwardArrays args;
  args.x = in.x.data();
  args.lengths = in.lengths_data();
  args.seed = in.seed_data();
  args.h0 = in.h0.data();
  args.c0 = in.c0.data();
  args.y = out.y.data();
  args.reserve = out.reserve.data();
  args.dy = out.dy.data();
  args.dhn = out.dhn.data();
  args.dcn = out.dcn.data();
  args.dx = results.Add("x", {desc.steps, desc.batch, desc.input}, desc.dtype);
  args.dh0 = results.Add("h_0", HiddenShape(desc), desc.dtype);
  if (desc.has_c()) {
    args.dc0 = results.Add("c_0", CellShape(desc), desc.dtype);
  } else {
    results.AddNone();
  }
  const std::vector<Weights> parameters = in.weight_pointers();
  args.weights = parameters.data();
  std::vector<WeightGradients> gradients(parameters.size());
  int64_t index = 0;
  for (size_t d = 0; d < gradients.size(); ++d) {
    for (const Parameter& of : ParametersOf(desc.At(static_cast<int64_t>(d) / desc.directions))) {
      gradients[d].*of.gradient = results.Add({"weights", index++}, ShapeOf(of), desc.dtype);
    }
  }
  args.gradients = gradients.data();
  std::vector<const Tensor*> read = in.tensors();
  out.AddTo(&read);
  results.ExpectApartFrom(read);
  const auto publish = [&] {
    return results.Publish({x, h0, c0, lengths, seed, y, reserve, dy, dhn, dcn}, weights);
  };
  try {
    py::gil_scoped_release release;
    const Workspace workspace(in.x.place(), in.plan->workspace_bytes(Pass::kBackward), in.stream);
    args.workspace = workspace.data();
    args.stream = in.stream;
    in.plan->Backward(args);
  } catch (...) {
    publish();  // As in forward.
    throw;
  }
  return publish();
}

// Words of the reserve for each step and row.
int64_t WordsOfReserve(const std::string& mode, const std::string& dtype, int64_t hidden,
                       int64_t directions, int64_t layers, int64_t projection,
                       const NoiseArgument& noise, bool layer_norm) {
  Layers desc;
  desc.mode = ParseMode(mode);
  desc.dtype = ParseDType(dtype);
  desc.steps = desc.batch = desc.input = 1;
  desc.hidden = hidden;
  desc.directions = directions;
  desc.layers = layers;
  desc.projection = projection;
  desc.noise = NoiseOf(noise);
  desc.layer_norm = layer_norm;
  desc.reserve = true;
  Validate(desc);
  return ReserveWords(desc);
}

}  // namespace

void DefineKernels(py::module_* m) {
  m->def("forward", &RunForward, py::arg("mode"), py::arg("x"), py::arg("h_0"), py::arg("c_0"),
         py::arg("weights"), py::arg("layers"), py::arg("lengths"), py::arg("projected"),
         py::arg("clip"), py::arg("noise"), py::arg("seed"), py::arg("layer_norm"), py::arg("tf32"),
         py::arg("algorithm"), py::arg("reserve"), py::arg("out"), py::arg("threads"),
         py::arg("stream"));
  m->def("backward", &RunBackward, py::arg("mode"), py::arg("x"), py::arg("h_0"), py::arg("c_0"),
         py::arg("weights"), py::arg("layers"), py::arg("lengths"), py::arg("projected"),
         py::arg("clip"), py::arg("noise"), py::arg("seed"), py::arg("layer_norm"), py::arg("tf32"),
         py::arg("algorithm"), py::arg("output"), py::arg("reserve"), py::arg("d_output"),
         py::arg("d_h_n"), py::arg("d_c_n"), py::arg("out"), py::arg("threads"), py::arg("stream"));
  m->def("reserve_words", &WordsOfReserve, py::arg("mode"), py::arg("dtype"), py::arg("hidden"),
         py::arg("directions"), py::arg("layers"), py::arg("projection") = 0,
         py::arg("noise") = py::none(), py::arg("layer_norm") = false);
}

}  // namespace python
}  // namespace fastrnn
