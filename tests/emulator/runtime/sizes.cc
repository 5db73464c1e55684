// Workspaces of layers that are too large for tests to have.
#include <cstdio>

#include "control.h"
#include "error.h"
#include "rnn.h"

int emulator_workspace_bytes(const char* mode, const char* dtype, int64_t steps, int64_t batch,
                             int64_t input, int64_t hidden, int64_t* bytes, char* message,
                             size_t size) {
  try {
    fastrnn::Layers desc;
    desc.mode = fastrnn::ParseMode(mode);
    desc.dtype = fastrnn::ParseDType(dtype);
    desc.device = fastrnn::Device::kCuda;
    desc.steps = steps;
    desc.batch = batch;
    desc.input = input;
    desc.hidden = hidden;
    desc.reserve = true;
    desc.algorithm = fastrnn::DefaultAlgorithm();
    const auto plan = fastrnn::MakePlan(desc);
    bytes[0] = static_cast<int64_t>(plan->workspace_bytes(fastrnn::Pass::kForward));
    bytes[1] = static_cast<int64_t>(plan->workspace_bytes(fastrnn::Pass::kBackward));
    return 0;
  } catch (const fastrnn::InvalidArgument& e) {
    std::snprintf(message, size, "%s", e.what());
    return 1;
  }
}
