// Parses and checks descriptions.
#include "rnn.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <limits>
#include <sstream>

#include "cells/traits.h"
#include "error.h"
#include "layout.h"
#include "parameters.h"

namespace fastrnn {
namespace {

void ExpectPositive(const char* name, int64_t value) {
  FASTRNN_EXPECTS(value >= 1,
                  std::string(name) + " is " + std::to_string(value) + ", expected 1 or more");
}

void ExpectInt(const char* name, int64_t value) {
  constexpr int64_t kMost = std::numeric_limits<int>::max();
  FASTRNN_EXPECTS(value <= kMost, std::string(name) + " is " + std::to_string(value) +
                                      ", expected at most " + std::to_string(kMost));
}

void ExpectRate(const char* name, double rate) {
  FASTRNN_EXPECTS(rate >= 0 && rate <= 1, std::string(name) + " is " + std::to_string(rate) +
                                              ", expected a probability from 0 to 1");
}

// The product of positive sizes. Throws InvalidArgument if it overflows.
int64_t CheckedProduct(const char* what, std::initializer_list<int64_t> factors) {
  int64_t product = 1;
  for (int64_t factor : factors) {
    FASTRNN_EXPECTS(product <= std::numeric_limits<int64_t>::max() / 16 / factor,
                    std::string("the number of values of ") + what + " overflows 64 bits");
    product *= factor;
  }
  return product;
}

// "a, b or c": the names in a table of traits.
template <class Traits, size_t kCount>
std::string Names(const Traits (&table)[kCount]) {
  std::string text = table[0].name;
  for (size_t i = 1; i < kCount; ++i) {
    text += std::string(i + 1 < kCount ? ", " : " or ") + table[i].name;
  }
  return text;
}

// The index of a name in a table of traits.
template <class Traits, size_t kCount>
size_t Find(const char* what, const std::string& name, const Traits (&table)[kCount]) {
  for (size_t i = 0; i < kCount; ++i) {
    if (name == table[i].name) return i;
  }
  throw InvalidArgument(std::string(what) + " is '" + name + "', expected " + Names(table),
                        __FILE__, __LINE__);
}

}  // namespace

const CellTraits& TraitsOf(Mode mode) { return kCells[static_cast<size_t>(mode)]; }

Mode ParseMode(const std::string& name) { return static_cast<Mode>(Find("mode", name, kCells)); }

DType ParseDType(const std::string& name) {
  return static_cast<DType>(Find("dtype", name, kDTypes));
}

std::string DTypeNames() { return Names(kDTypes); }

bool DefaultTf32() {
  const char* text = std::getenv("FASTRNN_TF32");
  const std::string value = text == nullptr ? "1" : text;
  FASTRNN_EXPECTS(value == "0" || value == "1", "FASTRNN_TF32 is '" + value + "', expected 0 or 1");
  return value == "1";
}

bool WithoutOverruledTf32(bool wanted) {
  const char* text = std::getenv("NVIDIA_TF32_OVERRIDE");
  return wanted && (text == nullptr || std::string(text) != "0");
}

Algorithm ParseAlgorithm(const std::string& what, const std::string& text) {
  const auto unknown = [&] {
    return InvalidArgument(what + " is '" + text + "', expected auto, stepwise or persistent",
                           __FILE__, __LINE__);
  };
  Algorithm algorithm;
  std::istringstream words(text);
  std::string word;
  std::getline(words, word, ':');
  if (word == "stepwise") {
    algorithm.kind = Algorithm::Kind::kStepwise;
  } else if (word == "persistent") {
    algorithm.kind = Algorithm::Kind::kPersistent;
  } else if (word != "auto") {
    throw unknown();
  }
  struct Number {
    const char* name;
    std::optional<int>* value;
    long least, most;
  };
  constexpr long kMost = 1024;
  const Number numbers[] = {{"row_tiles", &algorithm.row_tiles, 1, kMost},
                            {"backward_row_tiles", &algorithm.backward_row_tiles, 1, kMost},
                            {"batch_tiles", &algorithm.batch_tiles, 1, kMost},
                            {"groups", &algorithm.groups, 1, kMost},
                            {"directions", &algorithm.directions, 1, kMost},
                            {"split", &algorithm.split, 1, kMost},
                            {"cluster", &algorithm.cluster, 0, 1},
                            {"shared_slices", &algorithm.shared_slices, 0, kMost},
                            {"tagged", &algorithm.tagged, 0, 1}};
  while (std::getline(words, word, ',')) {
    const size_t equals = word.find('=');
    const auto number = std::find_if(std::begin(numbers), std::end(numbers), [&](auto& known) {
      return word.substr(0, equals) == known.name;
    });
    char* end = nullptr;
    const char* digits = equals == std::string::npos ? "" : word.c_str() + equals + 1;
    const long value = std::strtol(digits, &end, 10);
    if (algorithm.kind == Algorithm::Kind::kStepwise || number == std::end(numbers) ||
        end == digits || *end != '\0' || value < number->least || value > number->most) {
      throw unknown();
    }
    *number->value = static_cast<int>(value);
  }
  return algorithm;
}

Algorithm DefaultAlgorithm() {
  const char* text = std::getenv("FASTRNN_ALGORITHM");
  return text == nullptr ? Algorithm() : ParseAlgorithm("FASTRNN_ALGORITHM", text);
}

void ValidateOptions(const LayerDesc& desc) {
  FASTRNN_EXPECTS(desc.has_c() || !desc.projected(), "only an lstm can be projected");
  FASTRNN_EXPECTS(desc.has_c() || !desc.clip.clips(),
                  "clip was given, but only an lstm has a cell state");
  FASTRNN_EXPECTS(desc.clip.low <= desc.clip.high, "clip is from " + std::to_string(desc.clip.low) +
                                                       " to " + std::to_string(desc.clip.high) +
                                                       ", expected a low end up to the high one");
  ExpectRate("zoneout_outputs", desc.noise.zoneout_outputs);
  ExpectRate("zoneout_states", desc.noise.zoneout_states);
  ExpectRate("drop_states", desc.noise.drop_states);
  FASTRNN_EXPECTS(desc.has_c() || desc.noise.zoneout_states == 0,
                  "zoneout_states was given, but only an lstm has a cell state");
  if (!desc.layer_norm) return;
  FASTRNN_EXPECTS(NormParts(desc) > 0, std::string("layer_norm was given, but a ") +
                                           desc.cell().name +
                                           " has none, expected an lstm or a gru");
  FASTRNN_EXPECTS(!desc.projected(),
                  "layer_norm was given for a projected lstm, expected one without a projection");
  FASTRNN_EXPECTS(!desc.clip.clips(),
                  "layer_norm was given together with clip, expected one of them");
  FASTRNN_EXPECTS(!desc.noise.any(),
                  "layer_norm was given together with noise, expected one of them");
}

namespace {

void ValidateLayer(const LayerDesc& desc) {
  ExpectPositive("sequence length", desc.steps);
  ExpectPositive("batch size", desc.batch);
  ExpectPositive("input size", desc.input);
  ExpectPositive("hidden size", desc.hidden);
  // The rows and outputs of a step are counted in ints.
  ExpectInt("batch size", desc.batch);
  FASTRNN_EXPECTS(desc.projection >= 0, "projection size is " + std::to_string(desc.projection) +
                                            ", expected 0 for none, or more");
  ExpectInt("projection size", desc.projection);
  FASTRNN_EXPECTS(
      desc.directions == 1 || desc.directions == kMaxDirections,
      "number of directions is " + std::to_string(desc.directions) + ", expected 1 or 2");
  ValidateOptions(desc);
  CheckedProduct("the input", {desc.steps, desc.batch, desc.input});
  CheckedProduct("the output", {desc.steps, desc.batch, desc.directions, desc.outputs()});
  const int64_t gates = desc.cell().gates, values = gates * (desc.layer_norm ? 3 : 1) + 4;
  CheckedProduct("the gates", {desc.steps, desc.batch, desc.directions, values, desc.hidden});
  CheckedProduct("the weights",
                 {gates, desc.hidden, std::max({desc.hidden, desc.input, desc.projection})});
}

}  // namespace

std::vector<Parameter> ParametersOf(const LayerDesc& desc) {
  const int64_t GH = desc.gate_rows(), H = desc.hidden, P = desc.outputs();
  using W = Weights;
  using D = WeightGradients;
  std::vector<Parameter> found = {{"i2h_weight", GH, desc.input, &W::i2h_weight, &D::i2h_weight},
                                  {"h2h_weight", GH, P, &W::h2h_weight, &D::h2h_weight},
                                  {"i2h_bias", GH, 0, &W::i2h_bias, &D::i2h_bias},
                                  {"h2h_bias", GH, 0, &W::h2h_bias, &D::h2h_bias}};
  if (desc.projected()) {
    found.push_back({"h2r_weight", P, H, &W::h2r_weight, &D::h2r_weight});
  }
  if (!desc.layer_norm) return found;
  found.push_back({"i2h_gamma", GH, 0, &W::i2h_gamma, &D::i2h_gamma});
  found.push_back({"h2h_gamma", GH, 0, &W::h2h_gamma, &D::h2h_gamma});
  if (!desc.has_c()) return found;
  found.push_back({"c_gamma", H, 0, &W::c_gamma, &D::c_gamma});
  found.push_back({"c_beta", H, 0, &W::c_beta, &D::c_beta});
  return found;
}

LayerDesc Layers::At(int64_t layer) const {
  LayerDesc desc = *this;
  if (layer > 0) desc.input = directions * outputs();
  return desc;
}

void Validate(const Layers& layers) {
  FASTRNN_EXPECTS(layers.layers >= 1,
                  "number of layers is " + std::to_string(layers.layers) + ", expected 1 or more");
  ValidateLayer(layers);
  if (layers.layers == 1) return;
  ValidateLayer(layers.At(1));
  const int64_t most = std::numeric_limits<int64_t>::max() / 128;
  FASTRNN_EXPECTS(
      layers.layers <=
          most / (layers.rows() * layers.directions * std::max(layers.hidden, layers.projection)),
      "the number of values of " + std::to_string(layers.layers) + " layers overflows 64 bits");
}

int64_t ReserveWords(const Layers& layers) {
  if (!layers.reserve) return 0;
  const int64_t values = (layers.layers - 1) * layers.directions * layers.outputs();
  return layers.layers * LayerReserveWords(layers) + (values * SizeOf(layers.dtype) + 3) / 4;
}

}  // namespace fastrnn
