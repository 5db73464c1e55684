// Checks a layer's description and hands it to the backend of its device.
#include "rnn.h"

#include <cstdlib>
#include <limits>

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
  Validate(desc);
  return desc.device == Device::kCuda ? cuda::Forward(desc, args) : cpu::Forward(desc, args);
}

void Backward(const LayerDesc& desc, const BackwardArgs& args) {
  Validate(desc);
  FASTRNN_EXPECTS(desc.reserve, "backward needs the reserve of a forward call that kept one");
  return desc.device == Device::kCuda ? cuda::Backward(desc, args) : cpu::Backward(desc, args);
}

}  // namespace fastrnn
