#include "results.h"

#include <pybind11/numpy.h>

#include <utility>

#include "../../cuda/devices.h"
#include "../../error.h"
#include "device_array.h"

namespace py = pybind11;

namespace fastrnn {
namespace python {
namespace {

// Other libraries' arrays are kept by the caller.
void KeepUntil(const py::object& object, const std::shared_ptr<const cuda::Event>& end) {
  if (py::isinstance<DeviceArray>(object)) object.cast<DeviceArray&>().KeepUntil(end);
}

}  // namespace

// ---- workspace ----------------------------------------------------------------------------------

Workspace::Workspace(const Place& place, size_t bytes, void* stream) {
  size_t space = bytes + kWorkspaceAlignment;
  memory_ = BackendOf(place.device).Allocate(place.index, space, stream);
  data_ = memory_->data();
  std::align(kWorkspaceAlignment, bytes, data_, space);
}

std::unique_ptr<Workspace> Zeros(const Place& place, void* stream, const Shape& shape,
                                 DType dtype) {
  size_t bytes = static_cast<size_t>(SizeOf(dtype));
  for (int64_t size : shape) bytes *= static_cast<size_t>(size);
  auto zeros = std::make_unique<Workspace>(place, bytes, stream);
  BackendOf(place.device).FillWithZeros(place.index, zeros->data(), bytes, stream);
  return zeros;
}

// ---- results ------------------------------------------------------------------------------------

Results::Results(const Place& place, void* stream, const py::object& out)
    : place_(place),
      stream_(stream),
      capturing_(BackendOf(place.device).IsCapturing(place.index, stream)),
      out_(out) {
  FASTRNN_EXPECTS(!capturing_ || !out.is_none(),
                  "stream is being captured into a CUDA graph, which would own new arrays: pass "
                  "the arrays to write to as out");
}

void* Results::New(const Shape& shape, DType dtype) {
  if (place_.device == Device::kCuda) {
    DeviceArray array(place_.index, shape, Name(dtype), stream_);
    void* const data = array.data();
    objects_.push_back(py::cast(std::move(array)));
    return data;
  }
  FASTRNN_EXPECTS(dtype != DType::kBfloat16,
                  "NumPy has no bfloat16: pass the arrays to write to as out");
  py::array array(py::dtype(Name(dtype)), shape);
  void* const data = array.mutable_data();
  objects_.push_back(std::move(array));
  return data;
}

void* Results::Given(const ArgumentName& name, const py::object& array, const Shape& shape,
                     DType dtype) {
  Tensor tensor(name, array, stream_, true);
  tensor.ExpectPlace(place_, "the call's x");
  tensor.ExpectType(dtype);
  tensor.ExpectShape(shape);
  // Our own arrays may still be in use on other streams.
  if (py::isinstance<DeviceArray>(array)) array.cast<DeviceArray&>().DelayForWriting(stream_);
  objects_.push_back(array);
  given_.push_back(tensor);
  return const_cast<void*>(tensor.data());
}

void* Results::Add(const ArgumentName& name, const Shape& shape, DType dtype) {
  if (out_.is_none()) return New(shape, dtype);
  ArgumentName given = name;
  given.where = "out.";
  return Given(given, py::object(py::sequence(out_)[next_++]), shape, dtype);
}

void Results::AddNone() {
  ++next_;
  objects_.push_back(py::none());
}

void Results::ExpectApartFrom(const std::vector<const Tensor*>& read) const {
  for (const Tensor& written : given_) {
    for (const Tensor& other : given_) {
      if (&other != &written) written.ExpectApartFrom(other);
    }
    for (const Tensor* other : read) written.ExpectApartFrom(*other);
  }
}

py::list Results::Publish(std::initializer_list<py::object> inputs, const py::sequence& weights) {
  if (place_.device == Device::kCuda && !capturing_) {
    const auto ready = cuda::Cuda().Record(place_.index, stream_);
    for (const py::object& object : objects_) {
      if (py::isinstance<DeviceArray>(object)) object.cast<DeviceArray&>().Publish(ready);
    }
    for (const py::object& input : inputs) KeepUntil(input, ready);
    for (const auto weight : weights) KeepUntil(py::object(weight), ready);
  }
  py::list list;
  for (const py::object& object : objects_) list.append(object);
  return list;
}

}  // namespace python
}  // namespace fastrnn
