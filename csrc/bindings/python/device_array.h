// fastrnn's own arrays on a GPU: results, and copies of host arrays.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>
#include <string>
#include <vector>

#include "../../rnn.h"

namespace fastrnn {
namespace cuda {
class Event;
class DeviceMemory;
}  // namespace cuda

namespace python {

class DeviceArray {
 public:
  // An uninitialised array, for work on the stream.
  DeviceArray(int device, std::vector<int64_t> shape, std::string type, void* stream);

  // Copies a host array, whose bytes are of this type, on the legacy default stream.
  static DeviceArray FromHost(const pybind11::array& array, const std::string& type, int device);

  // Copies the values to the host; bfloat16 as uint16, its bits.
  pybind11::array ToHost() const;

  void* data() const;
  // Makes a stream wait for all readers and writers of the array.
  void DelayForWriting(void* stream) const;
  void Publish(const std::shared_ptr<const cuda::Event>& ready);
  void KeepUntil(const std::shared_ptr<const cuda::Event>& end);

  // Adds the class to the module.
  static void Define(pybind11::module_* m);

 private:
  pybind11::capsule ToDlpack(const pybind11::object& stream) const;
  size_t bytes() const;

  std::shared_ptr<cuda::DeviceMemory> memory_;
  std::vector<int64_t> shape_;
  std::string type_;  // float32, float16, bfloat16 or int32
};

}  // namespace python
}  // namespace fastrnn
