// A direction's parameters, as the bindings take them: one table of names, shapes and pointers.
#pragma once

#include <cstdint>
#include <vector>

#include "rnn.h"

namespace fastrnn {

struct Parameter {
  const char* name;  // as in Weights
  int64_t rows;
  int64_t columns;  // 0: a vector of `rows` values
  const void* Weights::* weight;
  void* WeightGradients::* gradient;
};

// Those that the layer has, in the order of Weights.
std::vector<Parameter> ParametersOf(const LayerDesc& desc);

}  // namespace fastrnn
