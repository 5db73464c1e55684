// What a warp executes in a step of each persistent kernel, counted in machine code.
#pragma once

#include <iterator>

#include "plan.h"

namespace fastrnn {
namespace cuda {

// The longest path of a warp from one exchange to the next. A part is a slice of the product; of a
// scatter kernel it is a tile, and another block whose sums are added up. Latencies are clocks of
// one warp alone, which waits for each operand (tests/gpu/step_path.py).
struct PathCounts {
  int instructions, latency;            // of all, with one part
  int part_instructions, part_latency;  // that each further part adds
};

// Of the kernels of one cut and cell: for 16 bits, TF32 and IEEE float32; zeros if there is none.
struct StepCounts {
  Pass pass;
  int gates, row_tiles, batch_tiles;
  Reduction reduction;
  bool streams;
  Signal signal;
  PathCounts of_math[3];
};

constexpr StepCounts kStepCounts[] = {
#include "step_counts.inc"
};

// A kernel that is not in the table has zeros.
constexpr PathCounts CountsOf(const Instance& kernel, int gates, Maths math) {
  for (const StepCounts& of : kStepCounts) {
    if (of.pass == kernel.pass && of.gates == gates && of.row_tiles == kernel.row_tiles &&
        of.batch_tiles == kernel.batch_tiles && of.reduction == kernel.reduction &&
        of.streams == kernel.streams && of.signal == kernel.signal) {
      return of.of_math[math == k16Bit ? 0 : math == kTf32 ? 1 : 2];
    }
  }
  return {0, 0, 0, 0};
}

constexpr bool AllAreCounted() {
  for (const Instance& kernel : kInstances) {
    for (const int gates : {4, 3, 1}) {
      for (const Maths math : {k16Bit, kTf32, kIeee}) {
        if (kernel.Serves(kernel.pass, gates > 1, math) &&
            CountsOf(kernel, gates, math).latency == 0) {
          return false;
        }
      }
    }
  }
  return true;
}
static_assert(AllAreCounted(), "run tests/gpu/step_counts.py");

}  // namespace cuda
}  // namespace fastrnn
