// Arrays in a device's memory for callers that bring no allocator. No CUDA header, so that host
// files may include it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>

namespace fastrnn {
namespace cuda {

// Streams are cudaStream_t; null is the legacy default stream. Everything throws LibraryError where
// CUDA fails.

// Whether what is enqueued on the stream is recorded for a CUDA graph, rather than done. Then the
// stream may wait only for what is recorded as well: what the graph reads has to be there when it
// is launched, and nobody can tell when that is done with.
bool IsCapturing(int device, void* stream);

// The point that a stream has reached, for other streams to wait for. The host never waits.
class Event {
 public:
  Event(int device, void* stream);
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  // Work that is enqueued on the stream from now on starts after the event.
  void Delay(void* stream) const;

  void* stream() const { return stream_; }

 private:
  friend class Memory;
  int device_ = 0;
  void* stream_ = nullptr;
  void* event_ = nullptr;
};

// An array, allocated and given back in the order of streams: neither waits for the device. It
// comes from a pool of our own that keeps up to kKeptBytes of what was given back, where the
// default one returns all of it to the driver whenever somebody waits for the device.
constexpr uint64_t kKeptBytes = uint64_t{1} << 30;

class Memory {
 public:
  // For work on this stream. Until Publish, the stream has to exist.
  Memory(int device, size_t bytes, void* stream);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  void* data() const { return data_; }
  int device() const { return device_; }

  // Says that the array's content is there at `ready`. From now on the array does not need its
  // stream: it is given back on the legacy default stream, after `ready`.
  void Publish(const std::shared_ptr<const Event>& ready);

  // Has the array, which has been published, given back after this event too: its stream reads it.
  void KeepUntil(std::shared_ptr<const Event> end);

  // Lets a stream, unless it is being captured, wait for the content.
  void Delay(void* stream) const;
  // And for everything else that uses the array.
  void DelayForWriting(void* stream) const;

 private:
  int device_ = 0;
  void* stream_ = nullptr;
  void* data_ = nullptr;
  bool pooled_ = true;
  std::shared_ptr<const Event> ready_;
  std::map<void*, std::shared_ptr<const Event>> ends_;  // of each stream the last one
};

// Bytes of a device's pool that arrays have, and the most that they had since that was set back.
struct PoolBytes {
  uint64_t now, most;
};
// set_back: sets `most` back to what arrays have now, before it is read. Throws LibraryError where
// there is no pool, or CUDA is too old (before 11.3) to tell.
PoolBytes PoolBytesOf(int device, bool set_back);

void FillWithZeros(int device, void* data, size_t bytes, void* stream);

// When this returns, `from` has been read, but what came from there may still be on its way: work
// on the legacy default stream finds it arrived.
void CopyToDevice(const Memory& to, const void* from, size_t bytes);
// Waits for the copy. The legacy default stream has to wait for the content already.
void CopyToHost(void* to, const Memory& from, size_t bytes);

}  // namespace cuda
}  // namespace fastrnn
