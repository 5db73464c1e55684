// Parses the attributes of an operator's call: the layers, and the positions of arrays.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "../../rnn.h"

namespace fastrnn {
namespace operators {

using Attributes = std::unordered_map<std::string, std::string>;

// Throws InvalidArgument, naming the attribute. Sizes that come from the arrays are not set.
Layers ParseLayers(const Attributes& attributes);

// The number of the first layer in the stack that the masks of noise count.
int64_t FirstLayer(const Attributes& attributes);

// Where the arrays are among an operator's inputs. Its outputs are y, the states, and the reserve
// if the layers have one.
struct Positions {
  int states, lengths, seed;  // lengths and seed: kNone if there are none
  std::vector<int> weights;   // for each layer and direction, in the order of ParametersOf
  int inputs, outputs;        // how many there are

  static constexpr int kData = 0, kNone = -1;
};

// Data, states, weights, lengths, seed.
Positions PositionsOf(const Layers& layers, const Attributes& attributes);

// Data, each direction's i2h_weight, states, lengths, the other weights, seed.
Positions PositionsInGraph(const Layers& layers, const Attributes& attributes);

std::string InputName(const Layers& layers, const Positions& positions, int index);

}  // namespace operators
}  // namespace fastrnn
