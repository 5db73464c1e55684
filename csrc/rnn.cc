// Parses and checks descriptions.
#include "rnn.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <limits>
#include <sstream>
#include <utility>

#include "cells/traits.h"
#include "error.h"
#include "layout.h"

namespace fastrnn {
namespace {

void ExpectPositive(const char* name, int64_t value) {
  FASTRNN_EXPECTS(value >= 1,
                  std::string(name) + " is " + std::to_string(value) + ", expected 1 or more");
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

}  // namespace

const CellTraits& TraitsOf(Mode mode) { return kCells[static_cast<size_t>(mode)]; }

Mode ParseMode(const std::string& name) {
  for (size_t i = 0; i < std::size(kCells); ++i) {
    if (name == kCells[i].name) return static_cast<Mode>(i);
  }
  throw InvalidArgument("mode is '" + name + "', expected lstm, gru, rnn_tanh or rnn_relu",
                        __FILE__, __LINE__);
}

DType ParseDType(const std::string& name) {
  for (size_t i = 0; i < std::size(kDTypes); ++i) {
    if (name == kDTypes[i].name) return static_cast<DType>(i);
  }
  throw InvalidArgument("dtype is '" + name + "', expected float32, float16 or bfloat16", __FILE__,
                        __LINE__);
}

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
  const std::pair<const char*, int*> numbers[] = {
      {"row_tiles", &algorithm.row_tiles},
      {"backward_row_tiles", &algorithm.backward_row_tiles},
      {"batch_tiles", &algorithm.batch_tiles},
      {"groups", &algorithm.groups},
      {"directions", &algorithm.directions},
      {"split", &algorithm.split},
      {"cluster", &algorithm.cluster},
      {"shared_slices", &algorithm.shared_slices}};
  while (std::getline(words, word, ',')) {
    const size_t equals = word.find('=');
    const auto number = std::find_if(std::begin(numbers), std::end(numbers), [&](auto& known) {
      return word.substr(0, equals) == known.first;
    });
    char* end = nullptr;
    const char* digits = equals == std::string::npos ? "" : word.c_str() + equals + 1;
    const long value = std::strtol(digits, &end, 10);
    if (algorithm.kind == Algorithm::Kind::kStepwise || number == std::end(numbers) ||
        end == digits || *end != '\0' || value < 0 || value > 1024) {
      throw unknown();
    }
    *number->second = static_cast<int>(value);
  }
  return algorithm;
}

Algorithm DefaultAlgorithm() {
  const char* text = std::getenv("FASTRNN_ALGORITHM");
  return text == nullptr ? Algorithm() : ParseAlgorithm("FASTRNN_ALGORITHM", text);
}

namespace {

void ValidateLayer(const LayerDesc& desc) {
  ExpectPositive("sequence length", desc.steps);
  ExpectPositive("batch size", desc.batch);
  ExpectPositive("input size", desc.input);
  ExpectPositive("hidden size", desc.hidden);
  // The rows of a step are counted in ints.
  constexpr int64_t kMostRows = std::numeric_limits<int>::max();
  FASTRNN_EXPECTS(desc.batch <= kMostRows, "batch size is " + std::to_string(desc.batch) +
                                               ", expected at most " + std::to_string(kMostRows));
  FASTRNN_EXPECTS(
      desc.directions == 1 || desc.directions == kMaxDirections,
      "number of directions is " + std::to_string(desc.directions) + ", expected 1 or 2");
  CheckedProduct("the input", {desc.steps, desc.batch, desc.input});
  CheckedProduct("the gates", {desc.steps, desc.batch, desc.directions, 5, desc.hidden});
  CheckedProduct("the weights",
                 {4, desc.hidden, desc.hidden > desc.input ? desc.hidden : desc.input});
}

}  // namespace

LayerDesc Layers::At(int64_t layer) const {
  LayerDesc desc = *this;
  if (layer > 0) desc.input = directions * hidden;
  return desc;
}

void Validate(const Layers& layers) {
  FASTRNN_EXPECTS(layers.layers >= 1,
                  "number of layers is " + std::to_string(layers.layers) + ", expected 1 or more");
  ValidateLayer(layers);
  if (layers.layers == 1) return;
  ValidateLayer(layers.At(1));
  const int64_t most = std::numeric_limits<int64_t>::max() / 64;
  FASTRNN_EXPECTS(
      layers.layers <= most / (layers.rows() * layers.directions * layers.hidden),
      "the number of values of " + std::to_string(layers.layers) + " layers overflows 64 bits");
}

int64_t ReserveWords(const Layers& layers) {
  if (!layers.reserve) return 0;
  const int64_t values = (layers.layers - 1) * layers.directions * layers.hidden;
  return layers.layers * LayerReserveWords(layers) + (values * SizeOf(layers.dtype) + 3) / 4;
}

}  // namespace fastrnn
