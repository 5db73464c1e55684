// What heuristics.cc plans for and costs.cc counts. No CUDA header.
#pragma once

#include <cstdint>

#include "chunks.h"
#include "heuristics.h"

namespace fastrnn {
namespace cuda {

// A pass over a layer on a device.
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
  // How many of the directions can run at once.
  int64_t directions_at_once() const {
    return pass == Pass::kForward || BackwardIsOneChunk(desc) ? desc.directions : 1;
  }
  // What is exchanged for each row of the batch in a step.
  int64_t numbers() const { return pass == Pass::kForward ? desc.hidden : gates() * desc.hidden; }
};

inline int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline ProductShape ShapeOf(const Problem& problem, const PersistentPlan& plan) {
  const int64_t values = kChunkBytesOfK / SizeOf(problem.desc.dtype);
  const int64_t chunks = CeilDiv(CeilDiv(problem.numbers(), values), plan.split);
  return {plan.row_tiles,
          plan.batch_tiles,
          static_cast<int>(chunks),
          problem.tensor_cores,
          RegisterChunks(problem.tensor_cores, plan.row_tiles, plan.batch_tiles, plan.streams()),
          plan.shared_chunks};
}

inline ScatterShape ScatterShapeOf(const Problem& problem, const PersistentPlan& plan) {
  return {plan.batch_tiles,
          ScatterChunks(problem.gates(), static_cast<size_t>(SizeOf(problem.desc.dtype))),
          plan.blocks, problem.tensor_cores};
}

}  // namespace cuda
}  // namespace fastrnn
