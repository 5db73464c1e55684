// What a backend gives: plans for single layers, and memory on its devices. A backend is a folder
// with one `Registration`; nothing else names it. No CUDA header is included here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "rnn.h"

namespace fastrnn {

// ---- layers -------------------------------------------------------------------------------------

// As ForwardArrays and BackwardArrays, but of one layer: states are [D, N, H]. The arrays have been
// checked.
struct ForwardArgs {
  const void* x = nullptr;
  const int32_t* lengths = nullptr;
  const void* h0 = nullptr;
  const void* c0 = nullptr;
  Weights weights[kMaxDirections] = {};
  void* y = nullptr;
  void* hn = nullptr;
  void* cn = nullptr;
  void* reserve = nullptr;
  void* workspace = nullptr;
  void* stream = nullptr;
};

struct BackwardArgs {
  const void* x = nullptr;
  const int32_t* lengths = nullptr;
  const void* h0 = nullptr;
  const void* c0 = nullptr;
  Weights weights[kMaxDirections] = {};
  const void* y = nullptr;
  const void* reserve = nullptr;
  const void* dy = nullptr;
  const void* dhn = nullptr;
  const void* dcn = nullptr;
  void* dx = nullptr;
  void* dh0 = nullptr;
  void* dc0 = nullptr;
  WeightGradients gradients[kMaxDirections] = {};
  void* workspace = nullptr;
  void* stream = nullptr;
};

// How one layer is run. Backward is planned, and called, where the layer has a reserve.
class LayerPlan {
 public:
  virtual ~LayerPlan() = default;
  virtual size_t WorkspaceBytes(Pass pass) const = 0;
  virtual std::string Reason(Pass pass) const = 0;
  virtual void Forward(const ForwardArgs& args) const = 0;
  virtual void Backward(const BackwardArgs& args) const = 0;
};

// ---- memory -------------------------------------------------------------------------------------

// An array that is given back when this goes: on a GPU in the order of its stream.
class Memory {
 public:
  virtual ~Memory() = default;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  void* data() const { return data_; }

 protected:
  Memory() = default;
  void* data_ = nullptr;
};

// Streams are cudaStream_t. Everything throws LibraryError where the library underneath fails.
class Backend {
 public:
  virtual ~Backend() = default;

  // The number of the host's threads that a layer runs on, if it is called now; a plan is made for
  // that number. 0 where layers do not run on the host.
  virtual int Threads() const = 0;

  // The sizes have been checked. Throws InvalidArgument where the layer is not covered.
  virtual std::unique_ptr<const LayerPlan> MakePlan(const LayerDesc& desc) const = 0;

  // For work on this stream of the device.
  virtual std::unique_ptr<Memory> Allocate(int device, size_t bytes, void* stream) const = 0;
  virtual void FillWithZeros(int device, void* data, size_t bytes, void* stream) const = 0;

  // Whether what is enqueued on the stream is recorded for a CUDA graph, rather than done. Then the
  // stream may wait only for what is recorded as well: what the graph reads has to be there when it
  // is launched, and nobody can tell when that is done with.
  virtual bool IsCapturing(int device, void* stream) const = 0;
};

// Makes a backend known, before main().
class Registration {
 public:
  Registration(Device device, const Backend* backend);
};

// The device's backend, or null where this build has none.
const Backend* FindBackend(Device device);

// Throws InvalidArgument where this build has none.
const Backend& BackendOf(Device device);

}  // namespace fastrnn
