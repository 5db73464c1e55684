// How the threads share the units of a step's rows.
#pragma once

#include <algorithm>
#include <cstdint>

#include "threads.h"
#include "vectors/pointwise.h"

namespace fastrnn {
namespace cpu {

// Hidden units of a row that are computed together, how many such pieces make a task, and the least
// work for more than one thread.
constexpr int64_t kPieceUnits = 512;
constexpr int64_t kTaskPieces = 8;
constexpr int64_t kMinParallelUnits = 4096;

// Calls body(row, Units) over all rows and hidden units; `work` is the number of values per unit.
template <class Body>
void ForUnits(int64_t rows, int64_t hidden, Body body, int64_t work = 1) {
  const int64_t row_pieces = (hidden + kPieceUnits - 1) / kPieceUnits, pieces = rows * row_pieces;
  const auto run = [&](int64_t first, int64_t end) {
    for (int64_t piece = first; piece < end; ++piece) {
      const int64_t begin = piece % row_pieces * kPieceUnits;
      body(piece / row_pieces, Units{hidden, begin, std::min(begin + kPieceUnits, hidden)});
    }
  };
  if (rows * hidden * work < kMinParallelUnits) return run(0, pieces);
  const int64_t task_pieces = std::max<int64_t>(1, kTaskPieces / work);
  ParallelFor((pieces + task_pieces - 1) / task_pieces, [&](int64_t task) {
    run(task * task_pieces, std::min((task + 1) * task_pieces, pieces));
  });
}

// Whether a row takes part in a step.
template <class Step>
bool IsActive(const Step& step, int64_t row) {
  return step.lengths == nullptr || step.time < step.lengths[row];
}

// Copies the units of one state.
template <class T>
void Copy(const T* from, Units units, T* to) {
  if (from != to) std::copy(from + units.begin, from + units.end, to + units.begin);
}

}  // namespace cpu
}  // namespace fastrnn
