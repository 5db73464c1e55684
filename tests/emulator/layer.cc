// A layer's forward and backward on plain pointers, for tests of what has no place in NumPy.
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

#include "control.h"
#include "error.h"
#include "rnn.h"

namespace {

using fastrnn::BackwardArgs;
using fastrnn::ForwardArgs;
using fastrnn::LayerDesc;

LayerDesc Describe(const EmulatedLayer& layer) {
  LayerDesc desc;
  desc.mode = fastrnn::ParseMode(layer.mode);
  desc.dtype = fastrnn::ParseDType(layer.dtype);
  desc.device = fastrnn::Device::kCuda;
  desc.steps = layer.steps;
  desc.batch = layer.batch;
  desc.input = layer.input;
  desc.hidden = layer.hidden;
  desc.directions = layer.directions;
  desc.reserve = layer.reserve != nullptr;
  desc.tf32 = layer.tf32;
  return desc;
}

struct Workspace {
  explicit Workspace(size_t bytes) : storage(new char[bytes + fastrnn::kWorkspaceAlignment]) {
    size_t space = bytes + fastrnn::kWorkspaceAlignment;
    pointer = storage.get();
    std::align(fastrnn::kWorkspaceAlignment, bytes, pointer, space);
  }
  std::unique_ptr<char[]> storage;
  void* pointer;
};

template <class Call>
int Report(char* message, size_t size, Call call) {
  try {
    call();
    return 0;
  } catch (const fastrnn::InvalidArgument& e) {
    std::snprintf(message, size, "%s", e.what());
    return 1;
  } catch (const std::exception& e) {
    std::snprintf(message, size, "%s", e.what());
    return 2;
  }
}

}  // namespace

int64_t emulator_reserve_bytes(const EmulatedLayer* layer) {
  return static_cast<int64_t>(fastrnn::ReserveBytes(Describe(*layer)));
}

int emulator_workspace_bytes(const EmulatedLayer* layer, int64_t* bytes, char* message,
                             size_t size) {
  return Report(message, size, [&] {
    bytes[0] = static_cast<int64_t>(fastrnn::ForwardWorkspaceBytes(Describe(*layer)));
    bytes[1] = static_cast<int64_t>(fastrnn::BackwardWorkspaceBytes(Describe(*layer)));
  });
}

int emulator_forward(const EmulatedLayer* layer, char* message, size_t size) {
  return Report(message, size, [&] {
    const LayerDesc desc = Describe(*layer);
    ForwardArgs args;
    args.x = layer->x;
    args.lengths = layer->lengths;
    args.h0 = layer->h0;
    args.c0 = layer->c0;
    for (int d = 0; d < desc.directions; ++d) {
      void* const* w = layer->weights + 4 * d;
      args.weights[d] = {w[0], w[1], w[2], w[3]};
    }
    args.y = layer->y;
    args.hn = layer->hn;
    args.cn = layer->cn;
    args.reserve = layer->reserve;
    const Workspace workspace(fastrnn::ForwardWorkspaceBytes(desc));
    args.workspace = workspace.pointer;
    fastrnn::Forward(desc, args);
  });
}

int emulator_backward(const EmulatedLayer* layer, char* message, size_t size) {
  return Report(message, size, [&] {
    const LayerDesc desc = Describe(*layer);
    BackwardArgs args;
    args.x = layer->x;
    args.lengths = layer->lengths;
    args.h0 = layer->h0;
    args.c0 = layer->c0;
    for (int d = 0; d < desc.directions; ++d) {
      void* const* w = layer->weights + 4 * d;
      void* const* g = layer->d_weights + 4 * d;
      args.weights[d] = {w[0], w[1], w[2], w[3]};
      args.gradients[d] = {g[0], g[1], g[2], g[3]};
    }
    args.y = layer->y;
    args.reserve = layer->reserve;
    args.dy = layer->dy;
    args.dhn = layer->dhn;
    args.dcn = layer->dcn;
    args.dx = layer->dx;
    args.dh0 = layer->dh0;
    args.dc0 = layer->dc0;
    const Workspace workspace(fastrnn::BackwardWorkspaceBytes(desc));
    args.workspace = workspace.pointer;
    fastrnn::Backward(desc, args);
  });
}
