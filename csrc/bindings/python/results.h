// The arrays that a call writes, and the memory that it works in.
#pragma once

#include <pybind11/pybind11.h>

#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "../../backend.h"
#include "tensor.h"

namespace fastrnn {
namespace python {

using Shape = std::vector<int64_t>;

// A workspace, on the device of the arrays.
class Workspace {
 public:
  Workspace(const Place& place, size_t bytes, void* stream);
  void* data() const { return data_; }

 private:
  std::unique_ptr<Memory> memory_;
  void* data_;
};

// The arrays that a call writes: those that the caller brought, or else NumPy's on the CPU and
// DeviceArrays on a GPU.
class Results {
 public:
  // place, stream: of the call. out: None, or a sequence of arrays of which each Add takes the
  // next. Throws InvalidArgument where there is none on a stream that is being captured.
  Results(const Place& place, void* stream, const pybind11::object& out);

  // Adds an array to the results, and returns its memory. Throws TypeError or ValueError, naming
  // the array, where the caller brought one that does not fit.
  void* Add(const ArgumentName& name, const Shape& shape, DType dtype);
  void AddNone();

  // Throws ValueError where an array of the caller's is also one of these, which the call reads, or
  // another of the results.
  void ExpectApartFrom(const std::vector<const Tensor*>& read) const;

  // All work that writes them has been enqueued, or, where an error ended the call, all that ever
  // will be. It reads the inputs, of which some are None, and the weights. On a stream that is
  // being captured, nothing is told, since the work runs when the graph is launched.
  pybind11::list Publish(std::initializer_list<pybind11::object> inputs,
                         const pybind11::sequence& weights);

 private:
  void* New(const Shape& shape, DType dtype);
  void* Given(const ArgumentName& name, const pybind11::object& array, const Shape& shape,
              DType dtype);

  Place place_;
  void* stream_;
  bool capturing_;
  pybind11::object out_;
  size_t next_ = 0;
  std::vector<pybind11::object> objects_;
  std::vector<Tensor> given_;
};

// An array of zeros, for a state or the gradient of one that nobody gave.
std::unique_ptr<Workspace> Zeros(const Place& place, void* stream, const Shape& shape, DType dtype);

}  // namespace python
}  // namespace fastrnn
