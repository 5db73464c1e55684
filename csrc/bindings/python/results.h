// The arrays that a call writes, and its workspace.
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

// The arrays that a call writes: the caller's, or new NumPy arrays on the CPU and DeviceArrays on a
// GPU.
class Results {
 public:
  // place, stream: of the call. out: None, or a sequence of arrays, from which each Add takes the
  // next. Throws InvalidArgument if out is None on a stream that is being captured.
  Results(const Place& place, void* stream, const pybind11::object& out);

  // Adds an array to the results, and returns its memory. Throws TypeError or ValueError, naming
  // the array, if the caller's array does not fit.
  void* Add(const ArgumentName& name, const Shape& shape, DType dtype);
  void AddNone();

  // Throws ValueError if an array of the caller's overlaps one that the call reads, or another of
  // the results.
  void ExpectApartFrom(const std::vector<const Tensor*>& read) const;

  // Called when all work of the call has been enqueued, also after an error. Tells the results and
  // the arrays that the work reads, inputs (some are None) and weights, when it ends; not on a
  // stream that is being captured, since the work runs when the graph is launched.
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

// An array of zeros, for a state or its gradient that the caller did not pass.
std::unique_ptr<Workspace> Zeros(const Place& place, void* stream, const Shape& shape, DType dtype);

}  // namespace python
}  // namespace fastrnn
