// Parses the attributes of an operator's call: the layers, and the positions of arrays.
#pragma once

#include <string>
#include <unordered_map>

#include "../../rnn.h"

namespace fastrnn {
namespace operators {

using Attributes = std::unordered_map<std::string, std::string>;

// Throws InvalidArgument, naming the attribute. Sizes that come from the arrays are not set.
Layers ParseLayers(const Attributes& attributes);

// The number of the first layer in the stack that the masks of noise count.
int64_t FirstLayer(const Attributes& attributes);

// Positions of the operator's inputs and outputs.
struct Positions {
  int inputs, outputs, first_weight, weights_per_direction, lengths, seed;
  bool has_lengths, has_seed;

  Positions(const Layers& layers, const Attributes& attributes);
};

std::string InputName(const Layers& layers, const Positions& positions, int index);

}  // namespace operators
}  // namespace fastrnn
