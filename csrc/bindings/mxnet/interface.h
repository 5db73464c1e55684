// What lib_api does not offer, from MXNet's C interface: arrays that outlive a call, and whether
// autograd records. The interface is that of the libmxnet that loaded this library.
#pragma once

#include <mxnet/lib_api.h>

#include <cstddef>

namespace fastrnn {
namespace operators {

// Finds the interface. Throws LibraryError if that is not possible.
void FindInterface();

// Whether autograd records what the calling thread does.
bool IsRecording();

// Memory from MXNet's allocator, not initialized. Large arrays on a CPU are in huge pages, if the
// system has them.
class Array {
 public:
  Array(const mxnet::ext::MXContext& context, size_t bytes);
  ~Array();
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  size_t bytes_;
  void* handle_ = nullptr;
  void* data_ = nullptr;
};

}  // namespace operators
}  // namespace fastrnn
