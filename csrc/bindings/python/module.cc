// The Python module: the kernels, and the facts about this build.
#include <pybind11/pybind11.h>

#include <string>

#include "../../cells/traits.h"
#include "../../cuda/devices.h"
#include "../../error.h"
#include "../../rnn.h"
#include "device_array.h"
#include "kernels.h"

namespace py = pybind11;

namespace fastrnn {
#ifdef FASTRNN_WITH_ONEDNN
namespace cpu {
std::string OnednnVersion();
int Threads();
void SetThreads(int threads);
}  // namespace cpu
#endif

namespace python {
namespace {

// The types that the MXNet operators compute in, for each kind of MXNet's contexts.
py::dict OperatorTypes() {
  py::dict types;
#ifdef FASTRNN_WITH_MXNET
  [[maybe_unused]] const auto cuda = py::make_tuple(Name(DType::kFloat32), Name(DType::kFloat16));
#ifdef FASTRNN_EMULATE
  types["cpu"] = cuda;
#else
#ifdef FASTRNN_WITH_ONEDNN
  types["cpu"] = py::make_tuple(Name(DType::kFloat32), Name(DType::kFloat64));
#endif
#ifdef FASTRNN_WITH_CUDA
  types["gpu"] = cuda;
#endif
#endif
#endif
  return types;
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
  info["operator_types"] = OperatorTypes();
  py::dict gates;
  for (const CellTraits& cell : kCells) gates[cell.name] = cell.gates;
  info["gates"] = gates;
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

std::string CudaVersion(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

py::dict CudaDevices() {
  py::dict result;
  py::list devices;
  result["driver"] = py::none();
  result["error"] = py::none();
  const bool built = FindBackend(Device::kCuda) != nullptr;
  const cuda::Machine found =
      built ? cuda::Cuda().Query() : cuda::Machine{0, 0, {}, "built without CUDA"};
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
  result["devices"] = devices;
  return result;
}

// Of the CPU's kernels; 0: there are none.
int CpuThreads() {
#ifdef FASTRNN_WITH_ONEDNN
  return cpu::Threads();
#else
  return 0;
#endif
}

void SetCpuThreads(int threads) {
  FASTRNN_EXPECTS(threads >= 0, "threads is " + std::to_string(threads) +
                                    ", expected 0 for fastrnn's choice, or how many");
#ifdef FASTRNN_WITH_ONEDNN
  cpu::SetThreads(threads);
#endif
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
  m.def("cpu_threads", &CpuThreads);
  m.def("set_cpu_threads", &SetCpuThreads, py::arg("threads"));
  m.def("plans_made", &fastrnn::PlansMade);
  m.def(
      "pool_bytes",
      [](int device, bool set_back) {
        const fastrnn::cuda::PoolBytes bytes = fastrnn::cuda::Cuda().PoolBytesOf(device, set_back);
        return py::make_tuple(bytes.now, bytes.most);
      },
      py::arg("device"), py::arg("set_back"));
  DeviceArray::Define(&m);
  DefineKernels(&m);
  DefinePlan(&m);
}
