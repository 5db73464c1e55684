#include "attributes.h"

#include <locale.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "../../error.h"
#include "../../parameters.h"

namespace fastrnn {
namespace operators {
namespace {

constexpr int64_t kMostLayers = 1 << 16;  // the number of inputs stays far below INT_MAX

const std::string& Attribute(const Attributes& attributes, const std::string& name) {
  const auto found = attributes.find(name);
  FASTRNN_EXPECTS(found != attributes.end(), "_fastrnn_layer needs the attribute " + name);
  return found->second;
}

int64_t IntegerAttribute(const Attributes& attributes, const std::string& name, int64_t low,
                         int64_t high) {
  const std::string& text = Attribute(attributes, name);
  char* end = nullptr;
  const int64_t value = std::strtoll(text.c_str(), &end, 10);
  FASTRNN_EXPECTS(!text.empty() && *end == '\0' && value >= low && value <= high,
                  "_fastrnn_layer: " + name + " is '" + text + "', expected an integer from " +
                      std::to_string(low) + " to " + std::to_string(high));
  return value;
}

// With a point, whatever the process's locale has; infinity too, as strtod reads it, but not NaN.
// `missing` if it is not given.
double NumberAttribute(const Attributes& attributes, const std::string& name, double missing) {
  if (attributes.count(name) == 0) return missing;
  const std::string& text = Attribute(attributes, name);
  char* end = nullptr;
  static const locale_t of_c = newlocale(LC_NUMERIC_MASK, "C", nullptr);
  const double value = strtod_l(text.c_str(), &end, of_c);
  FASTRNN_EXPECTS(!text.empty() && *end == '\0' && !std::isnan(value),
                  "_fastrnn_layer: " + name + " is '" + text + "', expected a number");
  return value;
}

// How many states a layer has.
int States(const LayerDesc& desc) { return desc.has_c() ? 2 : 1; }

// 0 or 1; 0 if it is not given.
bool Flag(const Attributes& attributes, const std::string& name) {
  return attributes.count(name) > 0 && IntegerAttribute(attributes, name, 0, 1) == 1;
}

}  // namespace

Layers ParseLayers(const Attributes& attributes) {
  Layers desc;
  desc.mode = ParseMode(Attribute(attributes, "mode"));
  desc.hidden = IntegerAttribute(attributes, "hidden_size", 1, std::numeric_limits<int>::max() / 4);
  if (attributes.count("projection_size") > 0) {
    desc.projection =
        IntegerAttribute(attributes, "projection_size", 0, std::numeric_limits<int>::max() / 4);
  }
  if (attributes.count("num_directions") > 0) {
    desc.directions = IntegerAttribute(attributes, "num_directions", 1, kMaxDirections);
  }
  if (attributes.count("dtype") > 0) desc.dtype = ParseDType(attributes.at("dtype"));
  FASTRNN_EXPECTS(desc.dtype != DType::kBfloat16,
                  "_fastrnn_layer: dtype is 'bfloat16', expected float32, float16 or float64");
  desc.tf32 = attributes.count("tf32") > 0 ? IntegerAttribute(attributes, "tf32", 0, 1) == 1
                                           : DefaultTf32();
  desc.tf32 = WithoutOverruledTf32(desc.tf32);
  desc.algorithm = DefaultAlgorithm();
  desc.clip = {NumberAttribute(attributes, "state_clip_min", desc.clip.low),
               NumberAttribute(attributes, "state_clip_max", desc.clip.high),
               Flag(attributes, "state_clip_nan")};
  desc.noise = {NumberAttribute(attributes, "zoneout_outputs", 0),
                NumberAttribute(attributes, "zoneout_states", 0),
                NumberAttribute(attributes, "drop_states", 0)};
  if (!Flag(attributes, "use_seed")) desc.noise.drop_states = 0;  // nothing is dropped
  desc.layer_norm = Flag(attributes, "layer_norm");
  desc.reserve = Flag(attributes, "reserve");
  if (attributes.count("num_layers") > 0) {
    desc.layers = IntegerAttribute(attributes, "num_layers", 1, kMostLayers);
  }
  return desc;
}

int64_t FirstLayer(const Attributes& attributes) {
  if (attributes.count("first_layer") == 0) return 0;
  return IntegerAttribute(attributes, "first_layer", 0, kMostLayers);
}

namespace {

// What both orders of inputs begin with.
Positions Begin(const Layers& layers) {
  Positions positions;
  const size_t parameters = ParametersOf(layers).size();
  positions.weights.resize(parameters * static_cast<size_t>(layers.layers * layers.directions));
  positions.lengths = positions.seed = Positions::kNone;
  positions.outputs = 1 + States(layers) + (layers.reserve ? 1 : 0);
  return positions;
}

}  // namespace

Positions PositionsOf(const Layers& layers, const Attributes& attributes) {
  Positions positions = Begin(layers);
  int next = Positions::kData + 1;
  positions.states = next;
  next += States(layers);
  for (int& weight : positions.weights) weight = next++;
  if (Flag(attributes, "use_sequence_length")) positions.lengths = next++;
  if (Flag(attributes, "use_seed")) positions.seed = next++;
  positions.inputs = next;
  return positions;
}

Positions PositionsInGraph(const Layers& layers, const Attributes& attributes) {
  Positions positions = Begin(layers);
  const size_t parameters = ParametersOf(layers).size();
  int next = Positions::kData + 1;
  for (size_t i = 0; i < positions.weights.size(); i += parameters) positions.weights[i] = next++;
  positions.states = next;
  next += States(layers);
  if (Flag(attributes, "use_sequence_length")) positions.lengths = next++;
  for (size_t i = 0; i < positions.weights.size(); ++i) {
    if (i % parameters > 0) positions.weights[i] = next++;
  }
  if (Flag(attributes, "use_seed")) positions.seed = next++;
  positions.inputs = next;
  return positions;
}

std::string InputName(const Layers& layers, const Positions& positions, int index) {
  if (index == positions.seed) return "seed";
  if (index == positions.lengths) return "sequence_length";
  const auto weight = std::find(positions.weights.begin(), positions.weights.end(), index);
  if (weight != positions.weights.end()) {
    const std::vector<Parameter> parameters = ParametersOf(layers);
    const auto place = static_cast<size_t>(weight - positions.weights.begin());
    const auto direction = static_cast<int64_t>(place / parameters.size());
    return (direction % layers.directions == 0 ? "l" : "r") +
           std::to_string(direction / layers.directions) + "_" +
           parameters[place % parameters.size()].name;
  }
  return index == Positions::kData ? "data" : index == positions.states ? "state" : "state_cell";
}

}  // namespace operators
}  // namespace fastrnn
