#include "device_array.h"

#include <pybind11/stl.h>

#include <utility>

#include "../../cuda/devices.h"
#include "../../error.h"
#include "dlpack.h"
#include "tensor.h"

namespace py = pybind11;

namespace fastrnn {
namespace python {
namespace {

struct Type {
  const char* name;
  const char* numpy_name;  // of its host representation
  int dl_code;
  int bytes;
};

constexpr Type kTypes[] = {
    {"float32", "float32", kDlFloat, 4},
    {"float16", "float16", kDlFloat, 2},
    {"bfloat16", "uint16", kDlBfloat, 2},
    {"int32", "int32", kDlInt, 4},
};

const Type& Find(const std::string& name) {
  for (const Type& type : kTypes) {
    if (name == type.name) return type;
  }
  throw InvalidArgument("dtype is '" + name + "', expected float32, float16, bfloat16 or int32",
                        __FILE__, __LINE__);
}

// What a consumer of the array holds.
struct Exported {
  DlManagedTensor managed;
  std::shared_ptr<cuda::DeviceMemory> memory;
  std::vector<int64_t> shape;
};

void Release(DlManagedTensor* managed) { delete static_cast<Exported*>(managed->context); }

// The stream argument of __dlpack__, by the array API standard: None and 1 are the legacy default
// stream, 2 is the per-thread one, and -1 means that no stream has to wait.
intptr_t StreamNumber(const py::object& stream) {
  if (stream.is_none()) return 1;
  if (!py::isinstance<py::int_>(stream) || py::isinstance<py::bool_>(stream)) {
    ThrowTypeError("stream", stream, "None or a stream's number");
  }
  const auto number = stream.cast<intptr_t>();
  FASTRNN_EXPECTS(number >= -1,
                  "stream is " + std::to_string(number) + ", expected a stream's number or -1");
  return number;
}

}  // namespace

DeviceArray::DeviceArray(int device, std::vector<int64_t> shape, std::string type, void* stream)
    : shape_(std::move(shape)), type_(std::move(type)) {
  memory_ = cuda::Cuda().AllocateArray(device, bytes(), stream);
}

size_t DeviceArray::bytes() const {
  size_t bytes = Find(type_).bytes;
  for (int64_t size : shape_) bytes *= size;
  return bytes;
}

void* DeviceArray::data() const { return memory_->data(); }

void DeviceArray::DelayForWriting(void* stream) const { memory_->DelayForWriting(stream); }

void DeviceArray::Publish(const std::shared_ptr<const cuda::Event>& ready) {
  memory_->Publish(ready);
}

void DeviceArray::KeepUntil(const std::shared_ptr<const cuda::Event>& end) {
  memory_->KeepUntil(end);
}

DeviceArray DeviceArray::FromHost(const py::array& array, const std::string& type, int device) {
  const std::string wanted = Find(type).numpy_name;
  const std::string got = py::str(array.dtype());
  FASTRNN_EXPECTS(got == wanted, "array is of dtype " + got + ", expected " + wanted);
  const py::array dense = py::array::ensure(array, py::array::c_style);
  DeviceArray copy(device, {dense.shape(), dense.shape() + dense.ndim()}, type, nullptr);
  const void* from = dense.data();
  // A host function on the stream may be Python's, and need the GIL.
  const py::gil_scoped_release release;
  cuda::Cuda().CopyToDevice(*copy.memory_, from, copy.bytes());
  copy.Publish(cuda::Cuda().Record(device, nullptr));
  return copy;
}

py::array DeviceArray::ToHost() const {
  py::array copy(py::dtype(Find(type_).numpy_name), shape_);
  void* const to = copy.mutable_data();
  // With the GIL held, so that no other thread can write to the array first.
  memory_->Delay(nullptr);
  {
    const py::gil_scoped_release release;  // as in FromHost
    cuda::Cuda().CopyToHost(to, *memory_, bytes());
  }
  return copy;
}

py::capsule DeviceArray::ToDlpack(const py::object& stream) const {
  const intptr_t number = StreamNumber(stream);
  if (number >= 0) memory_->Delay(number == 1 ? nullptr : reinterpret_cast<void*>(number));
  const Type& type = Find(type_);
  auto exported = std::make_unique<Exported>(Exported{{}, memory_, shape_});
  DlTensor& tensor = exported->managed.tensor;
  tensor.data = memory_->data();
  tensor.device_type = kDlCuda;
  tensor.device_id = memory_->device();
  tensor.rank = static_cast<int32_t>(exported->shape.size());
  tensor.type_code = static_cast<uint8_t>(type.dl_code);
  tensor.type_bits = static_cast<uint8_t>(8 * type.bytes);
  tensor.type_lanes = 1;
  tensor.shape = exported->shape.data();
  exported->managed.context = exported.get();
  exported->managed.deleter = Release;
  // A consumer of the tensor renames the capsule, and calls the deleter.
  const py::capsule capsule(&exported->managed, kDlCapsule, [](PyObject* object) {
    if (!PyCapsule_IsValid(object, kDlCapsule)) return;
    Release(static_cast<DlManagedTensor*>(PyCapsule_GetPointer(object, kDlCapsule)));
  });
  exported.release();
  return capsule;
}

// Keywords of later versions of the protocol: only their defaults are supported.
void ExpectDefaults(const py::kwargs& keywords, int device) {
  const auto get = [&](const char* name) { return py::object(keywords.attr("get")(name)); };
  const py::object wanted = get("dl_device"), copy = get("copy");
  const bool elsewhere = !wanted.is_none() && !wanted.equal(py::make_tuple(kDlCuda, device));
  if (elsewhere || (!copy.is_none() && copy.cast<bool>())) {
    throw py::buffer_error("a DeviceArray is shared as it is: not copied, not on another device");
  }
}

void DeviceArray::Define(py::module_* m) {
  py::class_<DeviceArray>(*m, "DeviceArray")
      .def_static("from_host", &DeviceArray::FromHost, py::arg("array"), py::arg("dtype"),
                  py::arg("device"))
      .def("to_host", &DeviceArray::ToHost)
      .def_property_readonly("shape",
                             [](const DeviceArray& a) { return py::tuple(py::cast(a.shape_)); })
      .def_property_readonly("dtype", [](const DeviceArray& a) { return a.type_; })
      .def_property_readonly("device", [](const DeviceArray& a) { return a.memory_->device(); })
      .def(
          "__dlpack__",
          [](const DeviceArray& a, const py::object& stream, const py::kwargs& keywords) {
            ExpectDefaults(keywords, a.memory_->device());
            return a.ToDlpack(stream);
          },
          py::kw_only(), py::arg("stream") = py::none())
      .def("__dlpack_device__",
           [](const DeviceArray& a) { return py::make_tuple(kDlCuda, a.memory_->device()); });
}

}  // namespace python
}  // namespace fastrnn
