// Defines forward, backward and plan in the Python module, for fastrnn.kernels.
#pragma once

#include <pybind11/pybind11.h>

namespace fastrnn {
namespace python {

void DefineKernels(pybind11::module_* m);
void DefinePlan(pybind11::module_* m);

}  // namespace python
}  // namespace fastrnn
