#include "tensor.h"

#include "dlpack.h"

namespace py = pybind11;

namespace fastrnn {
namespace python {
namespace {

std::string ToString(const std::vector<int64_t>& shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

std::string ToString(const Place& place) {
  return place.device == Device::kCpu ? "the CPU" : "cuda:" + std::to_string(place.index);
}

// As NumPy names the type.
std::string TypeName(const DlTensor& tensor) {
  static const char* const kNames[] = {"int",    "uint",    "float", "opaque",
                                       "bfloat", "complex", "bool"};
  const bool known = tensor.type_code < sizeof kNames / sizeof *kNames;
  std::string name = known ? kNames[tensor.type_code] : "type" + std::to_string(tensor.type_code);
  name += std::to_string(tensor.type_bits);
  return tensor.type_lanes == 1 ? name : name + "x" + std::to_string(tensor.type_lanes);
}

// Whether the owner of the array takes a stream on which the array is to be ready.
bool IsOnCuda(const py::object& object) {
  if (!py::hasattr(object, "__dlpack_device__")) return false;
  const int type = py::tuple(object.attr("__dlpack_device__")())[0].cast<int>();
  return type == kDlCuda || type == kDlCudaManaged;
}

// Calls a method of the array that returns a DLPack capsule.
py::capsule ExportDlpack(const std::string& name, const py::object& object, const char* method,
                         const py::dict& arguments) {
  py::object capsule;
  try {
    capsule = object.attr(method)(**arguments);
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_Exception)) throw;
    const std::string message =
        name + "." + method + "() failed: " + std::string(py::str(error.value()));
    py::raise_from(error, PyExc_ValueError, message.c_str());
    throw py::error_already_set();
  }
  if (!PyCapsule_CheckExact(capsule.ptr())) {
    ThrowTypeError(name + "." + method + "()", capsule, "a capsule");
  }
  if (!PyCapsule_IsValid(capsule.ptr(), kDlCapsule)) {
    throw py::value_error(name + "." + method +
                          "() is a DLPack capsule that somebody has consumed, expected a new one");
  }
  return capsule;
}

}  // namespace

void ThrowTypeError(const std::string& name, const py::object& object, const std::string& wanted) {
  const std::string type = py::str(py::type::of(object).attr("__name__"));
  throw py::type_error(name + " is of type " + type + ", expected " + wanted);
}

Tensor::Tensor(const std::string& name, const py::object& object, void* stream, bool to_write)
    : name_(name) {
  if (py::isinstance<py::array>(object)) {
    FromNumpy(object.cast<py::array>(), to_write);
  } else if (py::hasattr(object, "__dlpack__")) {
    py::dict arguments;
    if (IsOnCuda(object)) arguments["stream"] = DlStream(stream);
    FromDlpack(ExportDlpack(name, object, "__dlpack__", arguments));
  } else if (py::hasattr(object, "to_dlpack_for_read")) {
    // MXNet would hand over the stored rows of a sparse array as if they were all of it.
    if (py::hasattr(object, "stype") && std::string(py::str(object.attr("stype"))) != "default") {
      Fail("sparse", "a dense, row-major array");
    }
    const char* const method = to_write ? "to_dlpack_for_write" : "to_dlpack_for_read";
    FromDlpack(ExportDlpack(name, object, method, {}));
  } else {
    ThrowTypeError(name, object, "a NumPy array or an array with __dlpack__");
  }
}

void Tensor::Fail(const std::string& got, const std::string& wanted) const {
  throw py::value_error(name_ + " is " + got + ", expected " + wanted);
}

void Tensor::FromNumpy(const py::array& array, bool to_write) {
  if (to_write && !array.writeable()) Fail("read-only", "an array to write to");
  type_ = py::str(array.dtype());
  if (array.itemsize() == 0) Fail("of dtype " + type_, "a type of numbers");
  shape_.assign(array.shape(), array.shape() + array.ndim());
  std::vector<int64_t> strides(array.strides(), array.strides() + array.ndim());
  for (int64_t& stride : strides) {
    // A field of a packed record lies between the multiples.
    if (stride % array.itemsize() != 0) Fail("strided", "a dense, row-major array");
    stride /= array.itemsize();
  }
  CheckStrides(strides);
  data_ = array.data();
  bytes_ = static_cast<size_t>(array.nbytes());
  if (reinterpret_cast<uintptr_t>(data_) % array.itemsize() != 0) {
    Fail("not aligned", "alignment to its values' size");
  }
  owner_ = array;
}

void Tensor::FromDlpack(const py::capsule& capsule) {
  // The capsule stays unconsumed, so that it frees the tensor when it goes.
  const auto& tensor =
      *static_cast<const DlTensor*>(PyCapsule_GetPointer(capsule.ptr(), kDlCapsule));
  if (tensor.device_type == kDlCuda || tensor.device_type == kDlCudaManaged) {
    place_ = {Device::kCuda, tensor.device_id};
  } else if (tensor.device_type != kDlCpu && tensor.device_type != kDlCudaHost) {
    Fail("on a device of DLPack's type " + std::to_string(tensor.device_type),
         "the CPU (1) or an NVIDIA GPU (2)");
  }
  type_ = TypeName(tensor);
  shape_.assign(tensor.shape, tensor.shape + tensor.rank);
  if (tensor.strides != nullptr) {
    CheckStrides(std::vector<int64_t>(tensor.strides, tensor.strides + tensor.rank));
  }
  data_ = static_cast<const char*>(tensor.data) + tensor.byte_offset;
  bytes_ = (static_cast<size_t>(tensor.type_bits) * tensor.type_lanes + 7) / 8;
  for (int64_t size : shape_) bytes_ *= static_cast<size_t>(size);
  if (reinterpret_cast<uintptr_t>(data_) * 8 % std::max<int>(tensor.type_bits, 8) != 0) {
    Fail("not aligned", "alignment to its values' size");
  }
  owner_ = capsule;
}

void Tensor::CheckStrides(const std::vector<int64_t>& strides) const {
  int64_t values = 1;
  for (int64_t size : shape_) values *= size;
  if (values == 0) return;
  int64_t dense = 1;
  for (size_t i = shape_.size(); i-- > 0;) {
    if (shape_[i] != 1 && strides[i] != dense) Fail("strided", "a dense, row-major array");
    dense *= shape_[i];
  }
}

void Tensor::ExpectRank(size_t rank) const {
  if (shape_.size() != rank) {
    Fail("of shape " + ToString(shape_), std::to_string(rank) + " dimensions");
  }
}

void Tensor::ExpectShape(const std::vector<int64_t>& expected) const {
  if (shape_ != expected) Fail("of shape " + ToString(shape_), "shape " + ToString(expected));
}

void Tensor::ExpectType(const std::string& type) const {
  if (type_ != type) Fail("of dtype " + type_, type);
}

void Tensor::ExpectPlaceOf(const Tensor& other) const {
  ExpectPlace(other.place_, other.name_ + " is");
}

void Tensor::ExpectPlace(const Place& place, const std::string& why) const {
  if (!(place_ == place)) {
    Fail("on " + ToString(place_), ToString(place) + ", where " + why);
  }
}

void Tensor::ExpectApartFrom(const Tensor& other) const {
  const auto* begin = static_cast<const char*>(data_);
  const auto* others = static_cast<const char*>(other.data_);
  if (place_ == other.place_ && begin < others + other.bytes_ && others < begin + bytes_) {
    Fail("in the same memory as " + other.name_, "an array of its own");
  }
}

DType Tensor::LayerType() const {
  if (place_.device == Device::kCpu) ExpectType(Name(DType::kFloat32));
  for (DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBfloat16}) {
    if (type_ == Name(dtype)) return dtype;
  }
  Fail("of dtype " + type_, "float32, float16 or bfloat16");
}

}  // namespace python
}  // namespace fastrnn
