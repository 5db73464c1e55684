// A float32 array that came from Python, kept alive while it is looked at.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

namespace fastrnn {
namespace python {

// "name is of type ..., expected wanted".
[[noreturn]] void ThrowTypeError(const std::string& name, const pybind11::object& object,
                                 const std::string& wanted);

class Tensor {
 public:
  // Takes NumPy arrays, and what has __dlpack__ (PyTorch, CuPy) or to_dlpack_for_read (MXNet).
  // Throws TypeError or ValueError, naming the argument, unless it is a dense, aligned float32
  // array on the CPU.
  Tensor(const std::string& name, const pybind11::object& object);

  // Throws ValueError unless the shape is this one.
  void ExpectShape(std::initializer_list<int64_t> expected) const;
  void ExpectRank(size_t rank) const;

  const float* data() const { return data_; }
  int64_t size(size_t dimension) const { return shape_.at(dimension); }

 private:
  void FromNumpy(const pybind11::array& array);
  void FromDlpack(const pybind11::capsule& capsule);
  void CheckStrides(const std::vector<int64_t>& strides) const;
  [[noreturn]] void Fail(const std::string& got, const std::string& wanted) const;

  std::string name_;
  std::vector<int64_t> shape_;
  const float* data_ = nullptr;
  pybind11::object owner_;
};

}  // namespace python
}  // namespace fastrnn
