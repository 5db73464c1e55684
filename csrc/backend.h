// The interface of a backend: plans for single layers, and memory on its devices. A backend is a
// folder with one `Registration`, by which plan.cc finds it. No CUDA header is included here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "rnn.h"

namespace fastrnn {

// ---- layers -------------------------------------------------------------------------------------

// How one layer is run. The arrays are this layer's, so states are [D, N, P] and [D, N, H], and
// have been checked. Backward is planned and called only if the layer has a reserve.
class LayerPlan {
 public:
  virtual ~LayerPlan() = default;
  virtual size_t WorkspaceBytes(Pass pass) const = 0;
  virtual std::string Reason(Pass pass) const = 0;
  virtual void Forward(const ForwardArrays& arrays) const = 0;
  virtual void Backward(const BackwardArrays& arrays) const = 0;
};

// ---- memory -------------------------------------------------------------------------------------

// An array, freed by the destructor: on a GPU, in the order of its stream.
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

// Streams are cudaStream_t. Everything throws LibraryError if a library underneath fails.
class Backend {
 public:
  virtual ~Backend() = default;

  // The number of host threads that a layer would run on now; a plan is made for that number. 0 if
  // layers do not run on the host.
  virtual int Threads() const = 0;

  // The sizes have been checked. Throws InvalidArgument if the backend does not cover the layer.
  virtual std::unique_ptr<const LayerPlan> MakePlan(const LayerDesc& desc) const = 0;

  // The memory is for work on this stream of the device.
  virtual std::unique_ptr<Memory> Allocate(int device, size_t bytes, void* stream) const = 0;
  virtual void FillWithZeros(int device, void* data, size_t bytes, void* stream) const = 0;

  // Whether work on the stream is captured into a CUDA graph instead of run. Then the stream may
  // wait only for work that is captured too: the arrays that the graph reads must be ready when it
  // is launched, and it is unknown when the graph has finished with them.
  virtual bool IsCapturing(int device, void* stream) const = 0;
};

// Registers a backend, before main().
class Registration {
 public:
  Registration(Device device, const Backend* backend);
};

// The device's backend, or null if this build has none.
const Backend* FindBackend(Device device);

// Throws InvalidArgument if this build has none.
const Backend& BackendOf(Device device);

}  // namespace fastrnn
