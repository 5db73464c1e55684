// Parses the attributes of an operator's call: the layers, and the positions of arrays.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "../../rnn.h"

namespace fastrnn {
namespace operators {

using Attributes = std::unordered_map<std::string, std::string>;

// What the attributes of a call say.
struct Options {
  Layers layers;             // without what comes from the arrays and from the environment
  std::optional<bool> tf32;  // not set: DefaultTf32()
  bool has_states = true, has_lengths = false, has_seed = false;
  int64_t first_layer = 0;  // its number in the stack, from which the seed's masks count
};

// Throws InvalidArgument, naming the attribute. Other attributes are MXNet's.
Options ParseAttributes(const Attributes& attributes);

// Parses the attribute "options", whose text is NAME=VALUE NAME=VALUE..., and no other. MXNet
// copies each attribute and asks for the number of arrays dozens of times in a training step, so
// there is one, and it is read without a table.
Options ParsePacked(const Attributes& attributes);

// Where the arrays are among an operator's inputs. Its outputs are y, the states if there are such
// inputs, and the reserve if the options ask for one.
struct Positions {
  int states, lengths, seed;  // kNone if there are none
  std::vector<int> weights;   // for each layer and direction, in the order of ParametersOf
  int inputs, outputs;        // how many there are

  static constexpr int kData = 0, kNone = -1;
};

// Data, states, weights, lengths, seed.
Positions PositionsOf(const Options& options);

// Data, the first layer's i2h_weights, states, lengths, the other weights, seed.
Positions PositionsInGraph(const Options& options);

std::string InputName(const Layers& layers, const Positions& positions, int index);

}  // namespace operators
}  // namespace fastrnn
