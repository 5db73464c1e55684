// Arrays on a GPU that fastrnn makes: results, and copies of what lies on the host.
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
  // Not initialised; for work on the stream.
  DeviceArray(int device, std::vector<int64_t> shape, std::string type, void* stream);

  // Copies an array from the host, whose bytes are of this type, on the legacy default stream.
  static DeviceArray FromHost(const pybind11::array& array, const std::string& type, int device);

  // Copies the values to the host; bfloat16 as the uint16 that it is stored as.
  pybind11::array ToHost() const;

  void* data() const;
  // Lets a stream wait until nobody reads or writes the array any more.
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
