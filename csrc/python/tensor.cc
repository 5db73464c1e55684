#include "tensor.h"

namespace py = pybind11;

namespace fastrnn {
namespace python {
namespace {

// The DLPack 0.x memory layout (dmlc/dlpack), which is an ABI that array libraries agree on.
struct DlTensor {
  void* data;
  int32_t device_type;
  int32_t device_id;
  int32_t rank;
  uint8_t type_code;
  uint8_t type_bits;
  uint16_t type_lanes;
  int64_t* shape;
  int64_t* strides;  // in values; null: dense and row-major
  uint64_t byte_offset;
};

constexpr int kDlCpu = 1;
constexpr int kDlCudaHost = 3;
constexpr int kDlFloat = 2;

std::string ToString(const std::vector<int64_t>& shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

// Calls a method of the array that returns a DLPack capsule.
py::capsule ExportDlpack(const std::string& name, const py::object& object, const char* method) {
  py::object capsule;
  try {
    capsule = object.attr(method)();
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
  if (!PyCapsule_IsValid(capsule.ptr(), "dltensor")) {
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

Tensor::Tensor(const std::string& name, const py::object& object) : name_(name) {
  if (py::isinstance<py::array>(object)) {
    FromNumpy(object.cast<py::array>());
  } else if (py::hasattr(object, "__dlpack__")) {
    FromDlpack(ExportDlpack(name, object, "__dlpack__"));
  } else if (py::hasattr(object, "to_dlpack_for_read")) {
    // MXNet would hand over the stored rows of a sparse array as if they were all of it.
    if (py::hasattr(object, "stype") && std::string(py::str(object.attr("stype"))) != "default") {
      Fail("sparse", "a dense, row-major array");
    }
    FromDlpack(ExportDlpack(name, object, "to_dlpack_for_read"));
  } else {
    ThrowTypeError(name, object, "a NumPy array or an array with __dlpack__");
  }
  if (reinterpret_cast<uintptr_t>(data_) % alignof(float) != 0)
    Fail("not aligned", "4-byte alignment");
}

void Tensor::Fail(const std::string& got, const std::string& wanted) const {
  throw py::value_error(name_ + " is " + got + ", expected " + wanted);
}

void Tensor::FromNumpy(const py::array& array) {
  const std::string dtype = py::str(array.dtype());
  if (dtype != "float32") Fail("of dtype " + dtype, "float32");
  shape_.assign(array.shape(), array.shape() + array.ndim());
  std::vector<int64_t> strides(array.strides(), array.strides() + array.ndim());
  for (int64_t& stride : strides) {
    // A field of a packed record lies between the multiples.
    if (stride % static_cast<int64_t>(sizeof(float)) != 0)
      Fail("strided", "a dense, row-major array");
    stride /= static_cast<int64_t>(sizeof(float));
  }
  CheckStrides(strides);
  data_ = static_cast<const float*>(array.data());
  owner_ = array;
}

void Tensor::FromDlpack(const py::capsule& capsule) {
  // The capsule stays unconsumed, so that it frees the tensor when it goes.
  const auto* tensor =
      static_cast<const DlTensor*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
  if (tensor->device_type != kDlCpu && tensor->device_type != kDlCudaHost) {
    Fail("on DLPack device type " + std::to_string(tensor->device_type),
         "the CPU (1): this build has no kernels for others");
  }
  if (tensor->type_code != kDlFloat || tensor->type_bits != 32 || tensor->type_lanes != 1) {
    Fail("of DLPack type code " + std::to_string(tensor->type_code) + " with " +
             std::to_string(tensor->type_bits) + " bits",
         "float32");
  }
  shape_.assign(tensor->shape, tensor->shape + tensor->rank);
  if (tensor->strides != nullptr) {
    CheckStrides(std::vector<int64_t>(tensor->strides, tensor->strides + tensor->rank));
  }
  data_ =
      reinterpret_cast<const float*>(static_cast<const char*>(tensor->data) + tensor->byte_offset);
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

void Tensor::ExpectShape(std::initializer_list<int64_t> expected) const {
  if (shape_ != std::vector<int64_t>(expected)) {
    Fail("of shape " + ToString(shape_), "shape " + ToString(expected));
  }
}

}  // namespace python
}  // namespace fastrnn
