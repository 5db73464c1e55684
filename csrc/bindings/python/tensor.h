// A view of an array from Python, which keeps it alive.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "../../rnn.h"

namespace fastrnn {
namespace python {

// An argument's name for messages, composed only when needed: where, text, [index], (note).
struct ArgumentName {
  const char* text;
  std::optional<int64_t> index;
  const char* note = "";
  const char* where = "";

  ArgumentName(const char* name) : text(name) {}  // NOLINT: most names have only a text
  ArgumentName(const char* name, int64_t number, const char* what = "")
      : text(name), index(number), note(what) {}
  std::string str() const;
};

// "name is of type ..., expected wanted".
[[noreturn]] void ThrowTypeError(const std::string& name, const pybind11::object& object,
                                 const std::string& wanted);

// The device of an array.
struct Place {
  Device device = Device::kCpu;
  int index = 0;  // of the CUDA device

  bool operator==(const Place& other) const {
    return device == other.device && index == other.index;
  }
};

class Tensor {
 public:
  // Takes NumPy arrays, and arrays with __dlpack__ (PyTorch, CuPy, DeviceArray) or
  // to_dlpack_for_read (MXNet). Asks the array's library to make it ready on the stream, a
  // cudaStream_t. Throws TypeError or ValueError, naming the argument, unless it is a dense,
  // aligned array on a CPU or an NVIDIA GPU. to_write: MXNet also waits for all readers, and a
  // NumPy array must not be read-only.
  Tensor(const ArgumentName& name, const pybind11::object& object, void* stream,
         bool to_write = false);

  // These throw ValueError if the array differs.
  void ExpectShape(const std::vector<int64_t>& expected) const;
  void ExpectRank(size_t rank) const;
  void ExpectType(DType dtype) const;
  void ExpectInt32() const;
  void ExpectPlaceOf(const Tensor& other) const;
  // where: the name of an array at that place, for the message.
  void ExpectPlace(const Place& place, const ArgumentName& where) const;
  // Throws ValueError if both overlap.
  void ExpectApartFrom(const Tensor& other) const;

  // The array's type as a layer's; throws ValueError for other types.
  DType LayerType() const;

  const void* data() const { return data_; }
  const Place& place() const { return place_; }
  int64_t size(size_t dimension) const { return shape_.at(dimension); }

 private:
  void FromNumpy(const pybind11::array& array, bool to_write);
  void FromDlpack(const pybind11::capsule& capsule);
  void CheckStrides(const std::vector<int64_t>& strides) const;
  [[noreturn]] void Fail(const std::string& got, const std::string& wanted) const;

  // NumPy's kind ('f', 'i', 'u', ...; 'B' for bfloat) and the size.
  struct Type {
    char kind = 0;
    int bits = 0;
    bool operator==(const Type& other) const { return kind == other.kind && bits == other.bits; }
  };
  static Type TypeOf(DType dtype);
  std::string TypeText() const;  // NumPy's name

  ArgumentName name_;
  Type type_;
  std::vector<int64_t> shape_;
  Place place_;
  const void* data_ = nullptr;
  size_t bytes_ = 0;
  pybind11::object owner_;
};

}  // namespace python
}  // namespace fastrnn
