// The Python module: the kernels on arrays of any DLPack producer, and what this build can do.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "../error.h"
#include "../rnn.h"
#include "tensor.h"
#ifdef FASTRNN_WITH_CUDA
#include "../cuda/device_info.h"
#endif

namespace py = pybind11;

namespace fastrnn {
namespace python {
namespace {

using Array = py::array_t<float>;

// Emulated CUDA kernels work in the host's memory.
#ifdef FASTRNN_EMULATE
constexpr Device kDevice = Device::kCuda;
#else
constexpr Device kDevice = Device::kCpu;
#endif

class Workspace {
 public:
  explicit Workspace(size_t bytes)
      : storage_(new char[bytes + kWorkspaceAlignment]), pointer_(storage_.get()) {
    size_t space = bytes + kWorkspaceAlignment;
    std::align(kWorkspaceAlignment, bytes, pointer_, space);
  }
  void* get() const { return pointer_; }

 private:
  std::unique_ptr<char[]> storage_;
  void* pointer_;
};

Array StateArray(const LayerDesc& desc) {
  return Array({desc.directions, desc.batch, desc.hidden});
}

// A state or the gradient of one; zeros where it is None.
Tensor StateTensor(const LayerDesc& desc, const std::string& name, py::object object) {
  if (object.is_none()) {
    Array zeros = StateArray(desc);
    std::fill_n(zeros.mutable_data(), zeros.size(), 0.0f);
    object = zeros;
  }
  Tensor state(name, object);
  state.ExpectShape({desc.directions, desc.batch, desc.hidden});
  return state;
}

// As StateTensor, for what only an LSTM has.
std::optional<Tensor> CellTensor(const LayerDesc& desc, const std::string& name,
                                 const py::object& object) {
  if (desc.has_cell()) return StateTensor(desc, name, object);
  FASTRNN_EXPECTS(object.is_none(), name + " was given, but only an lstm has a cell state");
  return std::nullopt;
}

// What forward and backward take, checked.
struct Inputs {
  LayerDesc desc;
  Tensor x;
  std::vector<Tensor> weights;  // i2h_weight, h2h_weight, i2h_bias, h2h_bias for each direction
  std::optional<Tensor> h0, c0;

  Inputs(const py::object& mode, const py::object& x_object, const py::object& h0_object,
         const py::object& c0_object, const py::object& weight_objects, bool reserve)
      : x("x", x_object) {
    if (!py::isinstance<py::str>(mode)) ThrowTypeError("mode", mode, "a string");
    desc.mode = ParseMode(mode.cast<std::string>());
    desc.device = kDevice;
    desc.reserve = reserve;
    x.ExpectRank(3);
    desc.steps = x.size(0);
    desc.batch = x.size(1);
    desc.input = x.size(2);
    ReadWeights(weight_objects);
    h0 = StateTensor(desc, "h_0", h0_object);
    c0 = CellTensor(desc, "c_0", c0_object);
  }

  Weights WeightsOf(int64_t direction) const {
    auto at = [&](int64_t i) { return weights[4 * direction + i].data(); };
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
                           py::object(objects[i]));
    }
    weights[1].ExpectRank(2);
    desc.directions = static_cast<int64_t>(objects.size()) / 4;
    desc.hidden = weights[1].size(1);
    Validate(desc);
    for (size_t i = 0; i < weights.size(); i += 4) {
      weights[i].ExpectShape({desc.gate_rows(), desc.input});
      weights[i + 1].ExpectShape({desc.gate_rows(), desc.hidden});
      weights[i + 2].ExpectShape({desc.gate_rows()});
      weights[i + 3].ExpectShape({desc.gate_rows()});
    }
  }
};

py::tuple ForwardArrays(const py::object& mode, const py::object& x, const py::object& h0,
                        const py::object& c0, const py::object& weights, bool reserve) {
  const Inputs in(mode, x, h0, c0, weights, reserve);
  const LayerDesc& desc = in.desc;
  Array y({desc.steps, desc.batch, desc.directions * desc.hidden});
  Array hn = StateArray(desc);
  Array cn = desc.has_cell() ? StateArray(desc) : Array(0);
  Array kept(reserve ? ReserveBytes(desc) / sizeof(float) : 0);
  ForwardArgs args;
  args.x = in.x.data();
  args.h0 = in.h0->data();
  args.c0 = in.c0 ? in.c0->data() : nullptr;
  for (int64_t d = 0; d < desc.directions; ++d) args.weights[d] = in.WeightsOf(d);
  args.y = y.mutable_data();
  args.hn = hn.mutable_data();
  args.cn = cn.mutable_data();
  args.reserve = kept.mutable_data();
  {
    py::gil_scoped_release release;
    const Workspace workspace(ForwardWorkspaceBytes(desc));
    args.workspace = workspace.get();
    Forward(desc, args);
  }
  return py::make_tuple(y, hn, desc.has_cell() ? py::object(cn) : py::none(),
                        reserve ? py::object(kept) : py::none());
}

// What a forward call with reserve returned, and the gradients of its outputs.
struct OutputGradients {
  Tensor y, reserve, dy, dhn;
  std::optional<Tensor> dcn;

  OutputGradients(const LayerDesc& desc, const py::object& y_object,
                  const py::object& reserve_object, const py::object& dy_object,
                  const py::object& dhn_object, const py::object& dcn_object)
      : y("output", y_object),
        reserve("reserve", reserve_object),
        dy("d_output", dy_object),
        dhn(StateTensor(desc, "d_h_n", dhn_object)),
        dcn(CellTensor(desc, "d_c_n", dcn_object)) {
    y.ExpectShape({desc.steps, desc.batch, desc.directions * desc.hidden});
    reserve.ExpectShape({static_cast<int64_t>(ReserveBytes(desc) / sizeof(float))});
    dy.ExpectShape({desc.steps, desc.batch, desc.directions * desc.hidden});
  }
};

py::tuple BackwardArrays(const py::object& mode, const py::object& x, const py::object& h0,
                         const py::object& c0, const py::object& weights, const py::object& y,
                         const py::object& reserve, const py::object& dy, const py::object& dhn,
                         const py::object& dcn) {
  const Inputs in(mode, x, h0, c0, weights, true);
  const LayerDesc& desc = in.desc;
  const OutputGradients out(desc, y, reserve, dy, dhn, dcn);
  Array dx({desc.steps, desc.batch, desc.input});
  Array dh0 = StateArray(desc);
  Array dc0 = desc.has_cell() ? StateArray(desc) : Array(0);
  BackwardArgs args;
  args.x = in.x.data();
  args.h0 = in.h0->data();
  args.c0 = in.c0 ? in.c0->data() : nullptr;
  args.y = out.y.data();
  args.reserve = out.reserve.data();
  args.dy = out.dy.data();
  args.dhn = out.dhn.data();
  args.dcn = out.dcn ? out.dcn->data() : nullptr;
  args.dx = dx.mutable_data();
  args.dh0 = dh0.mutable_data();
  args.dc0 = dc0.mutable_data();
  py::list gradients;
  for (int64_t d = 0; d < desc.directions; ++d) {
    Array of_weights[] = {Array({desc.gate_rows(), desc.input}),
                          Array({desc.gate_rows(), desc.hidden}), Array(desc.gate_rows()),
                          Array(desc.gate_rows())};
    args.weights[d] = in.WeightsOf(d);
    args.gradients[d] = {of_weights[0].mutable_data(), of_weights[1].mutable_data(),
                         of_weights[2].mutable_data(), of_weights[3].mutable_data()};
    for (const Array& array : of_weights) gradients.append(array);
  }
  {
    py::gil_scoped_release release;
    const Workspace workspace(BackwardWorkspaceBytes(desc));
    args.workspace = workspace.get();
    Backward(desc, args);
  }
  return py::make_tuple(dx, dh0, desc.has_cell() ? py::object(dc0) : py::none(), gradients);
}

py::dict BuildInfo() {
  py::dict info;
  info["version"] = FASTRNN_VERSION;
  info["compiler"] = __VERSION__;
  info["onednn"] = py::none();
  info["mxnet_operators"] = false;
  info["mxnet_version"] = py::none();
  info["cuda_toolkit"] = py::none();
  info["cuda_architectures"] = py::list();
  info["cuda_kernels"] = false;
#ifdef FASTRNN_WITH_ONEDNN
  info["onednn"] = cpu::OnednnVersion();
#endif
#ifdef FASTRNN_WITH_MXNET
  info["mxnet_operators"] = true;
  info["mxnet_version"] = FASTRNN_MXNET_VERSION;
#endif
#ifdef FASTRNN_WITH_CUDA
  info["cuda_toolkit"] = FASTRNN_CUDA_TOOLKIT;
  info["cuda_architectures"] = py::str(FASTRNN_CUDA_ARCHITECTURES).attr("split")(";");
#endif
  return info;
}

#ifdef FASTRNN_WITH_CUDA
std::string CudaVersion(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}
#endif

py::dict CudaDevices() {
  py::dict result;
  py::list devices;
  result["driver"] = py::none();
  result["error"] = py::none();
#ifdef FASTRNN_WITH_CUDA
  const cuda::Devices found = cuda::QueryDevices();
  if (found.driver_version > 0) result["driver"] = CudaVersion(found.driver_version);
  if (!found.error.empty()) result["error"] = found.error;
  for (const cuda::DeviceInfo& device : found.devices) {
    py::dict entry;
    entry["name"] = device.name;
    entry["compute_capability"] = std::to_string(device.major) + "." + std::to_string(device.minor);
    entry["memory_bytes"] = device.memory_bytes;
    entry["multiprocessors"] = device.multiprocessors;
    devices.append(entry);
  }
#else
  result["error"] = "built without CUDA";
#endif
  result["devices"] = devices;
  return result;
}

}  // namespace
}  // namespace python
}  // namespace fastrnn

PYBIND11_MODULE(_C, m) {
  using namespace fastrnn::python;  // NOLINT: the functions that this module consists of
  m.doc() = "Native kernels of fastrnn. fastrnn.kernels is the public face.";
  py::register_exception_translator([](std::exception_ptr error) {
    try {
      if (error) std::rethrow_exception(error);
    } catch (const fastrnn::InvalidArgument& e) {
      PyErr_SetString(PyExc_ValueError, e.what());
    } catch (const fastrnn::LibraryError& e) {
      PyErr_SetString(PyExc_RuntimeError, e.what());
    }
  });
  m.def("build_info", &BuildInfo);
  m.def("cuda_devices", &CudaDevices);
  m.def("forward", &ForwardArrays, py::arg("mode"), py::arg("x"), py::arg("h_0"), py::arg("c_0"),
        py::arg("weights"), py::arg("reserve"));
  m.def("backward", &BackwardArrays, py::arg("mode"), py::arg("x"), py::arg("h_0"), py::arg("c_0"),
        py::arg("weights"), py::arg("output"), py::arg("reserve"), py::arg("d_output"),
        py::arg("d_h_n"), py::arg("d_c_n"));
}
