// The CUDA backend's interface within the library: devices, plans for them, and memory. No CUDA
// header is included, so that host files may include it, also in builds without CUDA.
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

// An array, allocated and freed in the order of streams: neither waits for the device. It comes
// from a pool of our own, which keeps up to kKeptBytes of freed memory; the default pool returns
// all of it to the driver at each synchronization.
constexpr uint64_t kKeptBytes = uint64_t{1} << 30;

class DeviceMemory : public Memory {
 public:
  virtual int device() const = 0;

  // Sets the event at which the array's content is ready. From now on the array does not need its
  // stream: it is freed on the legacy default stream, after `ready`.
  virtual void Publish(const std::shared_ptr<const Event>& ready) = 0;

  // Frees the array, which has been published, only after this event too: its stream reads it.
  virtual void KeepUntil(std::shared_ptr<const Event> end) = 0;

  // Makes a stream wait for the content, unless the stream is being captured.
  virtual void Delay(void* stream) const = 0;
  // Also waits for everything else that uses the array.
  virtual void DelayForWriting(void* stream) const = 0;
};

// Bytes of a device's pool that arrays use, and the most that they have used since the last reset.
struct PoolBytes {
  uint64_t now, most;
};

struct DeviceInfo {
  std::string name;
  int major, minor;  // compute capability
  int64_t memory_bytes;
  int multiprocessors;
};

// What the CUDA runtime reports of the machine.
struct Machine {
  // 1000 * major + 10 * minor, the newest CUDA the driver serves; 0: no driver
  int driver_version = 0;
  int runtime_version = 0;  // of the toolkit that this library was built with
  std::vector<DeviceInfo> devices;
  std::string error;  // why there are no devices
};

// Streams are cudaStream_t; null is the legacy default stream. Everything throws LibraryError if
// CUDA fails.
class CudaBackend : public Backend {
 public:
  // Does not throw: without a GPU or driver, `error` says so.
  virtual Machine Query() const = 0;

  // The device need not be current.
  virtual DeviceFacts Facts(int device) const = 0;
  // What would run on desc's device: a choice whose grid the device holds at once. Throws as Choose
  // does.
  virtual Choice ChooseOnDevice(Pass pass, const LayerDesc& desc) const = 0;

  // For work on this stream. Until Publish, the stream has to exist.
  virtual std::unique_ptr<DeviceMemory> AllocateArray(int device, size_t bytes,
                                                      void* stream) const = 0;
  virtual std::shared_ptr<const Event> Record(int device, void* stream) const = 0;

  // When this returns, `from` has been read, but the copy may be under way. Work on the legacy
  // default stream finds it complete.
  virtual void CopyToDevice(const DeviceMemory& to, const void* from, size_t bytes) const = 0;
  // Waits for the copy. The legacy default stream must already wait for the content.
  virtual void CopyToHost(void* to, const DeviceMemory& from, size_t bytes) const = 0;

  // set_back: resets `most` to what arrays use now, before it is read. Throws LibraryError if there
  // is no pool or CUDA is older than 11.3.
  virtual PoolBytes PoolBytesOf(int device, bool set_back) const = 0;
};

// Throws InvalidArgument in a build without CUDA.
inline const CudaBackend& Cuda() {
  return static_cast<const CudaBackend&>(BackendOf(Device::kCuda));
}

}  // namespace cuda
}  // namespace fastrnn
