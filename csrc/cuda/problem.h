// A pass over a layer on a device, and the products that a plan cuts it into: what choosing a plan
// (plan.cc) and predicting its time (cost.cc) share.
#pragma once

#include <cstddef>
#include <cstdint>

#include "plan.h"

namespace fastrnn {
namespace cuda {

struct Problem {
  Pass pass;
  const LayerDesc& desc;
  const DeviceFacts& facts;
  bool tensor_cores;

  Problem(Pass of_pass, const LayerDesc& of_desc, bool tf32, const DeviceFacts& of_facts)
      : pass(of_pass),
        desc(of_desc),
        facts(of_facts),
        tensor_cores(of_desc.dtype != DType::kFloat32 || tf32) {}

  int gates() const { return desc.cell().gates; }
  int64_t value_bytes() const { return SizeOf(desc.dtype); }
  Maths math() const {
    return desc.dtype != DType::kFloat32 ? k16Bit : tensor_cores ? kTf32 : kIeee;
  }
  // How many of the directions can run at once.
  int64_t directions_at_once() const {
    return pass == Pass::kForward || BackwardIsOneChunk(desc) ? desc.directions : 1;
  }
  // The numbers that a step exchanges for each row of the batch.
  int64_t numbers() const { return pass == Pass::kForward ? desc.hidden : gates() * desc.hidden; }
};

inline int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline ProductShape ShapeOf(const Problem& problem, const PersistentPlan& plan) {
  const Instance& kernel = plan.kernel();
  const int64_t values = kSliceBytes / problem.value_bytes();
  const int64_t slices = CeilDiv(CeilDiv(problem.numbers(), values), plan.tile_parts());
  return {
      kernel.row_tiles,
      kernel.batch_tiles,
      static_cast<int>(slices),
      problem.tensor_cores,
      RegisterSlices(problem.tensor_cores, kernel.row_tiles, kernel.batch_tiles, kernel.streams),
      plan.shared_slices};
}

inline ScatterShape ScatterShapeOf(const Problem& problem, const PersistentPlan& plan) {
  return {plan.kernel().batch_tiles,
          ScatterSlices(problem.gates(), static_cast<size_t>(problem.value_bytes())), plan.blocks,
          problem.tensor_cores};
}

}  // namespace cuda
}  // namespace fastrnn
