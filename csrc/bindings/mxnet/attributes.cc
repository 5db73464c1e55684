#include "attributes.h"

#include <locale.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <string_view>
#include <system_error>
#include <utility>

#include "../../error.h"
#include "../../parameters.h"

namespace fastrnn {
namespace operators {
namespace {

int64_t Integer(std::string_view name, std::string_view text, int64_t low, int64_t high) {
  int64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  FASTRNN_EXPECTS(error == std::errc() && rest == end && value >= low && value <= high,
                  "_fastrnn_layer: " + std::string(name) + " is '" + std::string(text) +
                      "', expected an integer from " + std::to_string(low) + " to " +
                      std::to_string(high));
  return value;
}

// With a point, whatever the process's locale has; infinity too, as strtod reads it, but not NaN.
double Number(std::string_view name, std::string_view of) {
  const std::string text(of);
  char* end = nullptr;
  static const locale_t of_c = newlocale(LC_NUMERIC_MASK, "C", nullptr);
  const double value = strtod_l(text.c_str(), &end, of_c);
  FASTRNN_EXPECTS(!text.empty() && *end == '\0' && !std::isnan(value),
                  "_fastrnn_layer: " + std::string(name) + " is '" + text + "', expected a number");
  return value;
}

bool Flag(std::string_view name, std::string_view text) { return Integer(name, text, 0, 1) == 1; }

DType OperatorType(std::string_view text) {
  const DType dtype = ParseDType(std::string(text));
  FASTRNN_EXPECTS(dtype != DType::kBfloat16,
                  "_fastrnn_layer: dtype is 'bfloat16', expected float32, float16 or float64");
  return dtype;
}

// Collects what attributes say, one after the other.
class Parser {
 public:
  // Returns whether there is such an attribute.
  bool Set(std::string_view name, std::string_view text) {
    return SetLayers(name, text) || SetCell(name, text) || SetCall(name, text);
  }

  // Returns what was set, with all that a call needs.
  Options Finish() {
    FASTRNN_EXPECTS(has_mode_, "_fastrnn_layer needs the attribute mode");
    FASTRNN_EXPECTS(options_.layers.hidden > 0, "_fastrnn_layer needs the attribute hidden_size");
    if (!options_.has_seed) options_.layers.noise.drop_states = 0;  // nothing is dropped
    return std::move(options_);
  }

 private:
  bool SetLayers(std::string_view name, std::string_view text) {
    constexpr int64_t kMostUnits = std::numeric_limits<int>::max() / 4;
    constexpr int64_t kMostLayers = 1 << 16;  // the number of inputs stays far below INT_MAX
    Layers& layers = options_.layers;
    if (name == "mode") {
      layers.mode = ParseMode(std::string(text));
      has_mode_ = true;
    } else if (name == "hidden_size") {
      layers.hidden = Integer(name, text, 1, kMostUnits);
    } else if (name == "projection_size") {
      layers.projection = Integer(name, text, 0, kMostUnits);
    } else if (name == "num_directions") {
      layers.directions = Integer(name, text, 1, kMaxDirections);
    } else if (name == "num_layers") {
      layers.layers = Integer(name, text, 1, kMostLayers);
    } else if (name == "first_layer") {
      options_.first_layer = Integer(name, text, 0, kMostLayers);
    } else {
      return false;
    }
    return true;
  }

  bool SetCell(std::string_view name, std::string_view text) {
    Clip<double>& clip = options_.layers.clip;
    Noise& noise = options_.layers.noise;
    if (name == "state_clip_min") {
      clip.low = Number(name, text);
    } else if (name == "state_clip_max") {
      clip.high = Number(name, text);
    } else if (name == "state_clip_nan") {
      clip.nan = Flag(name, text);
    } else if (name == "zoneout_outputs") {
      noise.zoneout_outputs = Number(name, text);
    } else if (name == "zoneout_states") {
      noise.zoneout_states = Number(name, text);
    } else if (name == "drop_states") {
      noise.drop_states = Number(name, text);
    } else if (name == "layer_norm") {
      options_.layers.layer_norm = Flag(name, text);
    } else {
      return false;
    }
    return true;
  }

  bool SetCall(std::string_view name, std::string_view text) {
    if (name == "dtype") {
      options_.layers.dtype = OperatorType(text);
    } else if (name == "tf32") {
      options_.tf32 = Flag(name, text);
    } else if (name == "reserve") {
      options_.layers.reserve = Flag(name, text);
    } else if (name == "use_states") {
      options_.has_states = Flag(name, text);
    } else if (name == "use_sequence_length") {
      options_.has_lengths = Flag(name, text);
    } else if (name == "use_seed") {
      options_.has_seed = Flag(name, text);
    } else {
      return false;
    }
    return true;
  }

  Options options_;
  bool has_mode_ = false;
};

// How many states the operator has.
int States(const Options& options) {
  return !options.has_states ? 0 : options.layers.has_c() ? 2 : 1;
}

// What both orders of inputs begin with.
Positions Begin(const Options& options) {
  const Layers& layers = options.layers;
  Positions positions;
  const size_t parameters = ParametersOf(layers).size();
  positions.weights.resize(parameters * static_cast<size_t>(layers.layers * layers.directions));
  positions.states = positions.lengths = positions.seed = Positions::kNone;
  positions.outputs = 1 + States(options) + (layers.reserve ? 1 : 0);
  return positions;
}

}  // namespace

Options ParseAttributes(const Attributes& attributes) {
  Parser parser;
  for (const auto& [name, text] : attributes) parser.Set(name, text);
  return parser.Finish();
}

Options ParsePacked(const Attributes& attributes) {
  const auto found = attributes.find("options");
  FASTRNN_EXPECTS(found != attributes.end(), "_fastrnn_layer needs the attribute options");
  Parser parser;
  std::string_view rest = found->second;
  while (!rest.empty()) {
    const std::string_view pair = rest.substr(0, rest.find(' '));
    rest.remove_prefix(std::min(pair.size() + 1, rest.size()));
    const size_t equals = std::min(pair.find('='), pair.size());
    FASTRNN_EXPECTS(
        equals < pair.size() && parser.Set(pair.substr(0, equals), pair.substr(equals + 1)),
        "_fastrnn_layer: options have '" + std::string(pair) + "', expected NAME=VALUE");
  }
  return parser.Finish();
}

Positions PositionsOf(const Options& options) {
  Positions positions = Begin(options);
  int next = Positions::kData + 1;
  if (options.has_states) positions.states = next;
  next += States(options);
  for (int& weight : positions.weights) weight = next++;
  if (options.has_lengths) positions.lengths = next++;
  if (options.has_seed) positions.seed = next++;
  positions.inputs = next;
  return positions;
}

Positions PositionsInGraph(const Options& options) {
  const Layers& layers = options.layers;
  Positions positions = Begin(options);
  const size_t parameters = ParametersOf(layers).size();
  const size_t first = parameters * static_cast<size_t>(layers.directions);
  int next = Positions::kData + 1;
  for (size_t i = 0; i < first; i += parameters) positions.weights[i] = next++;
  if (options.has_states) positions.states = next;
  next += States(options);
  if (options.has_lengths) positions.lengths = next++;
  for (size_t i = 0; i < positions.weights.size(); ++i) {
    if (i >= first || i % parameters > 0) positions.weights[i] = next++;
  }
  if (options.has_seed) positions.seed = next++;
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
