// What the attributes of an operator's call say: the layers, and which place each array has.
#pragma once

#include <string>
#include <unordered_map>

#include "../../rnn.h"

namespace fastrnn {
namespace operators {

using Attributes = std::unordered_map<std::string, std::string>;

constexpr int kWeightsPerDirection = 4;

// Throws InvalidArgument, naming the attribute. Sizes that only the arrays tell are left out.
Layers ParseLayers(const Attributes& attributes);

// Positions of the operator's inputs and outputs.
struct Positions {
  int inputs, outputs, first_weight, lengths;
  bool has_lengths;

  Positions(const Layers& layers, const Attributes& attributes);
};

std::string InputName(const Layers& layers, const Positions& positions, int index);

}  // namespace operators
}  // namespace fastrnn
