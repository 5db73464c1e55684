#include "tensor.h"

#include <iterator>

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

// NumPy's name of the type.
std::string TypeName(const DlTensor& tensor) {
  static const char* const kNames[] = {"int",    "uint",    "float", "opaque",
                                       "bfloat", "complex", "bool"};
  const bool known = tensor.type_code < sizeof kNames / sizeof *kNames;
  std::string name = known ? kNames[tensor.type_code] : "type" + std::to_string(tensor.type_code);
  name += std::to_string(tensor.type_bits);
  return tensor.type_lanes == 1 ? name : name + "x" + std::to_string(tensor.type_lanes);
}

// Whether the array is on CUDA, so that __dlpack__ takes the stream on which it must be ready.
bool IsOnCuda(const py::object& object) {
  if (!py::hasattr(object, "__dlpack_device__")) return false;
  const int type = py::tuple(object.attr("__dlpack_device__")())[0].cast<int>();
  return type == kDlCuda || type == kDlCudaManaged;
}

// Calls a method of the array that returns a DLPack capsule.
py::capsule ExportDlpack(const ArgumentName& argument, const py::object& object, const char* method,
                         const py::dict& arguments) {
  const auto text = [&] { return argument.str() + "." + method + "()"; };
  py::object capsule;
  try {
    capsule = object.attr(method)(**arguments);
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_Exception)) throw;
    const std::string message = text() + " failed: " + std::string(py::str(error.value()));
    py::raise_from(error, PyExc_ValueError, message.c_str());
    throw py::error_already_set();
  }
  if (!PyCapsule_CheckExact(capsule.ptr())) {
    ThrowTypeError(text(), capsule, "a capsule");
  }
  if (!PyCapsule_IsValid(capsule.ptr(), kDlCapsule)) {
    throw py::value_error(text() +
                          " is a DLPack capsule that has been consumed, expected a new one");
  }
  return capsule;
}

}  // namespace

std::string ArgumentName::str() const {
  return std::string(where) + text + (index ? "[" + std::to_string(*index) + "]" : "") +
         (*note == '\0' ? std::string() : std::string(" (") + note + ")");
}

void ThrowTypeError(const std::string& name, const py::object& object, const std::string& wanted) {
  const std::string type = py::str(py::type::of(object).attr("__name__"));
  throw py::type_error(name + " is of type " + type + ", expected " + wanted);
}

Tensor::Tensor(const ArgumentName& name, const py::object& object, void* stream, bool to_write)
    : name_(name) {
  if (py::isinstance<py::array>(object)) {
    FromNumpy(object.cast<py::array>(), to_write);
  } else if (PyCapsule_IsValid(object.ptr(), kDlCapsule)) {
    FromDlpack(py::reinterpret_borrow<py::capsule>(object));
  } else if (py::hasattr(object, "__dlpack__")) {
    py::dict arguments;
    // The legacy default stream's number is 1.
    const auto number = reinterpret_cast<intptr_t>(stream);
    if (IsOnCuda(object)) arguments["stream"] = number == 0 ? 1 : number;
    FromDlpack(ExportDlpack(name, object, "__dlpack__", arguments));
  } else if (py::hasattr(object, "to_dlpack_for_read")) {
    // MXNet would pass the stored rows of a sparse array as if they were the whole array.
    if (py::hasattr(object, "stype") && std::string(py::str(object.attr("stype"))) != "default") {
      Fail("sparse", "a dense, row-major array");
    }
    const char* const method = to_write ? "to_dlpack_for_write" : "to_dlpack_for_read";
    FromDlpack(ExportDlpack(name, object, method, {}));
  } else {
    ThrowTypeError(name.str(), object, "a NumPy array or an array with __dlpack__");
  }
}

void Tensor::Fail(const std::string& got, const std::string& wanted) const {
  throw py::value_error(name_.str() + " is " + got + ", expected " + wanted);
}

void Tensor::FromNumpy(const py::array& array, bool to_write) {
  if (to_write && !array.writeable()) Fail("read-only", "an array to write to");
  owner_ = array;
  const py::dtype dtype = array.dtype();
  // No type matches the other byte order.
  const bool native = dtype.byteorder() == '=' || dtype.byteorder() == '|';
  type_ = {native ? dtype.kind() : '\0', static_cast<int>(8 * array.itemsize())};
  if (array.itemsize() == 0) Fail("of dtype " + TypeText(), "a type of numbers");
  shape_.assign(array.shape(), array.shape() + array.ndim());
  std::vector<int64_t> strides(array.strides(), array.strides() + array.ndim());
  for (int64_t& stride : strides) {
    // A field of a packed record need not be at a multiple.
    if (stride % array.itemsize() != 0) Fail("strided", "a dense, row-major array");
    stride /= array.itemsize();
  }
  CheckStrides(strides);
  data_ = array.data();
  bytes_ = static_cast<size_t>(array.nbytes());
  if (reinterpret_cast<uintptr_t>(data_) % array.itemsize() != 0) {
    Fail("not aligned", "alignment to its values' size");
  }
}

void Tensor::FromDlpack(const py::capsule& capsule) {
  // The capsule stays unconsumed, so that its destructor frees the tensor.
  const auto& tensor =
      *static_cast<const DlTensor*>(PyCapsule_GetPointer(capsule.ptr(), kDlCapsule));
  if (tensor.device_type == kDlCuda || tensor.device_type == kDlCudaManaged) {
    place_ = {Device::kCuda, tensor.device_id};
  } else if (tensor.device_type != kDlCpu && tensor.device_type != kDlCudaHost) {
    Fail("on a device of DLPack's type " + std::to_string(tensor.device_type),
         "the CPU (1) or an NVIDIA GPU (2)");
  }
  owner_ = capsule;
  static const char kKinds[] = {'i', 'u', 'f', '\0', 'B'};
  const bool known = tensor.type_code < sizeof kKinds && tensor.type_lanes == 1;
  type_ = {known ? kKinds[tensor.type_code] : '\0', tensor.type_bits};
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

std::string Tensor::TypeText() const {
  if (py::isinstance<py::array>(owner_)) return py::str(owner_.attr("dtype"));
  return TypeName(*static_cast<const DlTensor*>(PyCapsule_GetPointer(owner_.ptr(), kDlCapsule)));
}

Tensor::Type Tensor::TypeOf(DType dtype) {
  return {dtype == DType::kBfloat16 ? 'B' : 'f', static_cast<int>(8 * SizeOf(dtype))};
}

void Tensor::ExpectType(DType dtype) const {
  if (!(type_ == TypeOf(dtype))) Fail("of dtype " + TypeText(), Name(dtype));
}

void Tensor::ExpectInt32() const {
  if (!(type_ == Type{'i', 32})) Fail("of dtype " + TypeText(), "int32");
}

void Tensor::ExpectPlaceOf(const Tensor& other) const { ExpectPlace(other.place_, other.name_); }

void Tensor::ExpectPlace(const Place& place, const ArgumentName& where) const {
  if (!(place_ == place)) {
    Fail("on " + ToString(place_), ToString(place) + ", where " + where.str() + " is");
  }
}

void Tensor::ExpectApartFrom(const Tensor& other) const {
  const auto* begin = static_cast<const char*>(data_);
  const auto* others = static_cast<const char*>(other.data_);
  if (place_ == other.place_ && begin < others + other.bytes_ && others < begin + bytes_) {
    Fail("in the same memory as " + other.name_.str(), "an array of its own");
  }
}

DType Tensor::LayerType() const {
  for (size_t i = 0; i < std::size(kDTypes); ++i) {
    const auto dtype = static_cast<DType>(i);
    if (type_ == TypeOf(dtype)) return dtype;
  }
  Fail("of dtype " + TypeText(), DTypeNames());
}

}  // namespace python
}  // namespace fastrnn
