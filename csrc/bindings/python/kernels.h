// Defines forward, backward and plan in the Python module, for fastrnn.kernels.
#pragma once

#include <pybind11/pybind11.h>

#include <optional>
#include <tuple>

#include "../../rnn.h"

namespace fastrnn {
namespace python {

// The low and the high end, and what becomes of NaN.
using ClipArgument = std::optional<std::tuple<double, double, bool>>;

inline Clip<double> ClipOf(const ClipArgument& clip) {
  if (!clip) return {};
  return {std::get<0>(*clip), std::get<1>(*clip), std::get<2>(*clip)};
}

// The rates of Noise, in their order.
using NoiseArgument = std::optional<std::tuple<double, double, double>>;

inline Noise NoiseOf(const NoiseArgument& noise) {
  if (!noise) return {};
  return {std::get<0>(*noise), std::get<1>(*noise), std::get<2>(*noise)};
}

void DefineKernels(pybind11::module_* m);
void DefinePlan(pybind11::module_* m);

}  // namespace python
}  // namespace fastrnn
