// Checks a layer's description and hands it to the backend of its device.
#include "rnn.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <sstream>
#include <utility>

#include "error.h"

namespace fastrnn {
namespace {

void ExpectPositive(const char* name, int64_t value) {
  FASTRNN_EXPECTS(value >= 1,
                  std::string(name) + " is " + std::to_string(value) + ", expected 1 or more");
}

// The product of sizes that have been checked to be positive.
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

Mode ParseMode(const std::string& name) {
  if (name == "lstm") return Mode::kLstm;
  if (name == "gru") return Mode::kGru;
  if (name == "rnn_tanh") return Mode::kRnnTanh;
  if (name == "rnn_relu") return Mode::kRnnRelu;
  throw InvalidArgument("mode is '" + name + "', expected lstm, gru, rnn_tanh or rnn_relu",
                        __FILE__, __LINE__);
}

DType ParseDType(const std::string& name) {
  for (DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBfloat16}) {
    if (name == Name(dtype)) return dtype;
  }
  throw InvalidArgument("dtype is '" + name + "', expected float32, float16 or bfloat16", __FILE__,
                        __LINE__);
}

const char* Name(DType dtype) {
  if (dtype == DType::kFloat32) return "float32";
  return dtype == DType::kFloat16 ? "float16" : "bfloat16";
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
      {"shared_chunks", &algorithm.shared_chunks}};
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

void Validate(const LayerDesc& desc) {
  ExpectPositive("sequence length", desc.steps);
  ExpectPositive("batch size", desc.batch);
  ExpectPositive("input size", desc.input);
  ExpectPositive("hidden size", desc.hidden);
  FASTRNN_EXPECTS(
      desc.directions == 1 || desc.directions == kMaxDirections,
      "number of directions is " + std::to_string(desc.directions) + ", expected 1 or 2");
  CheckedProduct("the input", {desc.steps, desc.batch, desc.input});
  CheckedProduct("the gates", {desc.steps, desc.batch, desc.directions, 5, desc.hidden});
  CheckedProduct("the weights",
                 {4, desc.hidden, desc.hidden > desc.input ? desc.hidden : desc.input});
}

size_t ReserveBytes(const LayerDesc& desc) {
  Validate(desc);
  return desc.directions * desc.rows() * desc.hidden * ReserveWords(desc.mode, desc.dtype) * 4;
}

namespace {

// Checks that arrays are there and lie where their type may lie.
class ArrayChecks {
 public:
  explicit ArrayChecks(const LayerDesc& desc) : desc_(desc) {}

  void Expect(const std::string& name, const void* array) const {
    Expect(name, array, SizeOf(desc_.dtype));
  }
  void Expect(const std::string& name, const void* array, size_t alignment) const {
    FASTRNN_EXPECTS(array != nullptr, name + " is null, expected an array");
    FASTRNN_EXPECTS(reinterpret_cast<uintptr_t>(array) % alignment == 0,
                    name + " is not aligned, expected an address that is a multiple of " +
                        std::to_string(alignment));
  }

  // What both passes take.
  template <class Args>
  void ExpectInputs(const Args& args) const {
    Expect("x", args.x);
    Expect("h_0", args.h0);
    if (desc_.has_cell()) Expect("c_0", args.c0);
    if (args.lengths != nullptr) Expect("lengths", args.lengths, sizeof(int32_t));
    Expect("output", args.y);
    if (desc_.reserve && ReserveBytes(desc_) > 0) Expect("reserve", args.reserve, sizeof(float));
    Expect("workspace", args.workspace, kWorkspaceAlignment);
    ExpectParameters("weights", args.weights, args.layer);
  }

  // Numbered as in a list of all layers' parameters.
  template <class Parameters>
  void ExpectParameters(const std::string& name, const Parameters* parameters,
                        int64_t layer) const {
    const int64_t first = 4 * desc_.directions * layer;
    for (int64_t d = 0; d < desc_.directions; ++d) {
      const void* const arrays[] = {parameters[d].i2h_weight, parameters[d].h2h_weight,
                                    parameters[d].i2h_bias, parameters[d].h2h_bias};
      for (int64_t i = 0; i < 4; ++i) {
        Expect(name + "[" + std::to_string(first + 4 * d + i) + "]", arrays[i]);
      }
    }
  }

 private:
  const LayerDesc& desc_;
};

void Check(const LayerDesc& desc, const ForwardArgs& args) {
  Validate(desc);
  const ArrayChecks checks(desc);
  checks.ExpectInputs(args);
  checks.Expect("h_n", args.hn);
  if (desc.has_cell()) checks.Expect("c_n", args.cn);
}

void Check(const LayerDesc& desc, const BackwardArgs& args) {
  Validate(desc);
  FASTRNN_EXPECTS(desc.reserve, "backward needs the reserve of a forward call that kept one");
  const ArrayChecks checks(desc);
  checks.ExpectInputs(args);
  checks.Expect("d_output", args.dy);
  checks.Expect("d_h_n", args.dhn);
  checks.Expect("gradient of x", args.dx);
  checks.Expect("gradient of h_0", args.dh0);
  if (desc.has_cell()) {
    checks.Expect("d_c_n", args.dcn);
    checks.Expect("gradient of c_0", args.dc0);
  }
  checks.ExpectParameters("gradient of weights", args.gradients, args.layer);
}

}  // namespace

size_t ForwardWorkspaceBytes(const LayerDesc& desc) {
  Validate(desc);
  return desc.device == Device::kCuda ? cuda::ForwardWorkspaceBytes(desc)
                                      : cpu::ForwardWorkspaceBytes(desc);
}

size_t BackwardWorkspaceBytes(const LayerDesc& desc) {
  Validate(desc);
  return desc.device == Device::kCuda ? cuda::BackwardWorkspaceBytes(desc)
                                      : cpu::BackwardWorkspaceBytes(desc);
}

void Forward(const LayerDesc& desc, const ForwardArgs& args) {
  Check(desc, args);
  return desc.device == Device::kCuda ? cuda::Forward(desc, args) : cpu::Forward(desc, args);
}

void Backward(const LayerDesc& desc, const BackwardArgs& args) {
  Check(desc, args);
  return desc.device == Device::kCuda ? cuda::Backward(desc, args) : cpu::Backward(desc, args);
}

}  // namespace fastrnn
