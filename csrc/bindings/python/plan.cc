// fastrnn.kernels.plan: what the CUDA backend would choose.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <variant>

#include "../../cuda/devices.h"
#include "../../error.h"
#include "../../rnn.h"
#include "kernels.h"

namespace fastrnn {
namespace python {
namespace {

namespace py = pybind11;

py::dict DeviceFactsOf(int device) {
  const cuda::DeviceFacts facts = cuda::Cuda().Facts(device);
  py::dict result;
  result["capability"] = facts.capability;
  result["multiprocessors"] = facts.multiprocessors;
  result["shared_bytes"] = facts.shared_bytes;
  result["cluster_multiprocessors"] = facts.cluster_multiprocessors;
  result["l2_bytes"] = facts.l2_bytes;
  result["code_capability"] = facts.code_capability;
  result["cooperative"] = facts.cooperative;
  return result;
}

// A measurement of DeviceFacts; 0: not measured.
double Measured(const py::dict& values, const char* name) {
  const auto value = values[name].cast<double>();
  FASTRNN_EXPECTS(value >= 0.0, std::string(name) + " is " + std::to_string(value) +
                                    ", expected 0 or what was measured");
  return value;
}

// From a dict with the names of DeviceFactsOf and the measurements.
cuda::DeviceFacts FactsFrom(const py::dict& values) {
  cuda::DeviceFacts facts;
  facts.capability = values["capability"].cast<int>();
  facts.multiprocessors = values["multiprocessors"].cast<int>();
  facts.shared_bytes = values["shared_bytes"].cast<size_t>();
  facts.cluster_multiprocessors = values["cluster_multiprocessors"].cast<int>();
  facts.l2_bytes = values["l2_bytes"].cast<size_t>();
  facts.code_capability = values["code_capability"].cast<int>();
  facts.cooperative = values["cooperative"].cast<bool>();
  facts.exchange_us = Measured(values, "exchange_us");
  facts.memory_bytes_per_us = Measured(values, "memory_bytes_per_us");
  facts.products_per_us = Measured(values, "products_per_us");
  facts.host_us = Measured(values, "host_us");
  return facts;
}

py::dict CostOf(const cuda::Cost& cost) {
  py::dict result;
  result["flops"] = cost.flops;
  result["l2_bytes"] = cost.l2_bytes;
  result["memory_bytes"] = cost.memory_bytes;
  result["synchronizations"] = cost.synchronizations;
  result["path_us"] = cost.path_us;
  result["step_us"] = cost.step_us;
  result["total_us"] = cost.total_us;
  return result;
}

Layers Described(const std::string& mode, const std::string& dtype, int64_t steps, int64_t batch,
                 int64_t input, int64_t hidden, int64_t directions, std::optional<bool> tf32,
                 const std::optional<std::string>& algorithm) {
  Layers desc;
  desc.mode = ParseMode(mode);
  desc.dtype = ParseDType(dtype);
  desc.steps = steps;
  desc.batch = batch;
  desc.input = input;
  desc.hidden = hidden;
  desc.directions = directions;
  desc.tf32 = WithoutOverruledTf32(tf32.value_or(DefaultTf32()));
  desc.algorithm = algorithm ? ParseAlgorithm("algorithm", *algorithm) : DefaultAlgorithm();
  return desc;
}

// device: a GPU of this machine, or the facts about another.
cuda::Choice ChoiceOn(const std::variant<int, py::dict>& device, Pass pass, LayerDesc desc) {
  if (const int* index = std::get_if<int>(&device)) {
    desc.device_index = *index;
    return cuda::Cuda().ChooseOnDevice(pass, desc);
  }
  const cuda::DeviceFacts facts = FactsFrom(std::get<py::dict>(device));
  return cuda::Choose(pass, desc, cuda::AllowsTf32(desc.tf32, facts), facts);
}

py::dict Plan(bool backward, const std::string& mode, const std::string& dtype, int64_t steps,
              int64_t batch, int64_t hidden, int64_t directions, std::optional<bool> tf32,
              const std::optional<std::string>& algorithm,
              const std::variant<int, py::dict>& device, int64_t projection,
              const ClipArgument& clip, const NoiseArgument& noise, bool layer_norm) {
  // The steps do not include the input's share: I is 1.
  Layers desc = Described(mode, dtype, steps, batch, 1, hidden, directions, tf32, algorithm);
  desc.projection = projection;
  desc.clip = ClipOf(clip);
  desc.noise = NoiseOf(noise);
  desc.layer_norm = layer_norm;
  Validate(desc);
  const cuda::Choice choice = ChoiceOn(device, backward ? Pass::kBackward : Pass::kForward, desc);
  py::dict result = CostOf(choice.cost);
  result["algorithm"] = choice.persistent ? "persistent" : "stepwise";
  result["reason"] = choice.reason;
  if (!choice.persistent) return result;
  const cuda::PersistentPlan& plan = choice.plan;
  result["row_tiles"] = plan.kernel().row_tiles;
  result["batch_tiles"] = plan.kernel().batch_tiles;
  result["units"] = plan.units;
  result["blocks"] = plan.blocks;
  result["groups"] = plan.groups;
  result["launches"] = plan.launches;
  result["directions"] = plan.directions;
  result["split"] = plan.parts_of_k();
  result["cluster"] = plan.cluster();
  result["tagged"] = plan.tagged();
  result["streamed_slices"] = plan.streamed_slices;
  result["shared_bytes"] = plan.shared_bytes;
  return result;
}

// device: the CPU, or one of this machine's GPUs.
std::string ReasonOf(const std::string& mode, const std::string& dtype, int64_t steps,
                     int64_t batch, int64_t input, int64_t hidden, int64_t directions,
                     int64_t layers, int64_t projection, const ClipArgument& clip,
                     const NoiseArgument& noise, bool layer_norm, bool reserve,
                     std::optional<bool> tf32, const std::optional<std::string>& algorithm,
                     std::optional<int> device) {
  Layers desc = Described(mode, dtype, steps, batch, input, hidden, directions, tf32, algorithm);
  desc.device = device ? Device::kCuda : Device::kCpu;
  desc.device_index = device.value_or(0);
  desc.layers = layers;
  desc.projection = projection;
  desc.clip = ClipOf(clip);
  desc.noise = NoiseOf(noise);
  desc.layer_norm = layer_norm;
  desc.reserve = reserve;
  const py::gil_scoped_release release;
  return MakePlan(desc)->Reason();
}

}  // namespace

void DefinePlan(py::module_* m) {
  m->def("reason", &ReasonOf, py::arg("mode"), py::arg("dtype"), py::arg("steps"), py::arg("batch"),
         py::arg("input"), py::arg("hidden"), py::arg("directions"), py::arg("layers"),
         py::arg("projection"), py::arg("clip"), py::arg("noise"), py::arg("layer_norm"),
         py::arg("reserve"), py::arg("tf32"), py::arg("algorithm"), py::arg("device"));
  m->def("device_facts", &DeviceFactsOf, py::arg("device"));
  m->def("plan", &Plan, py::arg("backward"), py::arg("mode"), py::arg("dtype"), py::arg("steps"),
         py::arg("batch"), py::arg("hidden"), py::arg("directions"), py::arg("tf32"),
         py::arg("algorithm"), py::arg("device"), py::arg("projection") = 0,
         py::arg("clip") = std::nullopt, py::arg("noise") = std::nullopt,
         py::arg("layer_norm") = false);
}

}  // namespace python
}  // namespace fastrnn
