// CUDA devices, for callers that bring no allocator, and what the CUDA backend knows of them. No
// CUDA header, so that host files may include it, in builds without CUDA too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "../backend.h"
#include "plan.h"

namespace fastrnn {
namespace cuda {

// The point that a stream has reached, for other streams to wait for. The host never waits.
class Event {
 public:
  explicit Event(void* stream) : stream_(stream) {}
  virtual ~Event() = default;
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  // Work that is enqueued on the stream from now on starts after the event.
  virtual void Delay(void* stream) const = 0;

  void* stream() const { return stream_; }

 private:
  void* stream_;
};

// An array, allocated and given back in the order of streams: neither waits for the device. It
// comes from a pool of our own that keeps up to kKeptBytes of what was given back, where the
// default one returns all of it to the driver at each synchronization.
constexpr uint64_t kKeptBytes = uint64_t{1} << 30;

class DeviceMemory : public Memory {
 public:
  virtual int device() const = 0;

  // Says that the array's content is there at `ready`. From now on the array does not need its
  // stream: it is given back on the legacy default stream, after `ready`.
  virtual void Publish(const std::shared_ptr<const Event>& ready) = 0;

  // Has the array, which has been published, given back after this event too: its stream reads it.
  virtual void KeepUntil(std::shared_ptr<const Event> end) = 0;

  // Lets a stream, unless it is being captured, wait for the content.
  virtual void Delay(void* stream) const = 0;
  // And for everything else that uses the array.
  virtual void DelayForWriting(void* stream) const = 0;
};

// Bytes of a device's pool that arrays have, and the most that they had since that was set back.
struct PoolBytes {
  uint64_t now, most;
};

struct DeviceInfo {
  std::string name;
  int major, minor;  // compute capability
  int64_t memory_bytes;
  int multiprocessors;
};

// What the CUDA runtime says of the machine.
struct Machine {
  // 1000 * major + 10 * minor, the newest CUDA the driver serves; 0: no driver
  int driver_version = 0;
  int runtime_version = 0;  // of the toolkit that this library was built with
  std::vector<DeviceInfo> devices;
  std::string error;  // why there are no devices
};

// Streams are cudaStream_t; null is the legacy default stream. Everything throws LibraryError where
// CUDA fails.
class CudaBackend : public Backend {
 public:
  // Does not throw: a machine without a GPU or driver is an answer, which stands in `error`.
  virtual Machine Query() const = 0;

  // Of the device, which need not be current.
  virtual DeviceFacts Facts(int device) const = 0;
  // What would run on the device that desc names: the choice whose grid it holds at once. Throws as
  // Choose.
  virtual Choice ChooseOnDevice(Pass pass, const LayerDesc& desc) const = 0;

  // For work on this stream. Until Publish, the stream has to exist.
  virtual std::unique_ptr<DeviceMemory> AllocateArray(int device, size_t bytes,
                                                      void* stream) const = 0;
  virtual std::shared_ptr<const Event> Record(int device, void* stream) const = 0;

  // When this returns, `from` has been read, but what came from there may still be on its way: work
  // on the legacy default stream finds it arrived.
  virtual void CopyToDevice(const DeviceMemory& to, const void* from, size_t bytes) const = 0;
  // Waits for the copy. The legacy default stream has to wait for the content already.
  virtual void CopyToHost(void* to, const DeviceMemory& from, size_t bytes) const = 0;

  // set_back: sets `most` back to what arrays have now, before it is read. Throws LibraryError
  // where there is no pool, or CUDA is too old (before 11.3) to tell.
  virtual PoolBytes PoolBytesOf(int device, bool set_back) const = 0;
};

// Throws InvalidArgument in a build without CUDA.
inline const CudaBackend& Cuda() {
  return static_cast<const CudaBackend&>(BackendOf(Device::kCuda));
}

}  // namespace cuda
}  // namespace fastrnn
