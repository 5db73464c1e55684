// How a layer's work is laid out in time and in memory; the same for every backend.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "rnn.h"

namespace fastrnn {

// Carves arrays from a workspace; on a null base it only counts.
class Carver {
 public:
  explicit Carver(void* base) : base_(static_cast<char*>(base)) {}
  template <class T>
  T* Take(size_t count) {
    T* array = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    const size_t end = used_ + count * sizeof(T) + kWorkspaceAlignment - 1;
    used_ = end / kWorkspaceAlignment * kWorkspaceAlignment;
    return array;
  }
  size_t used() const { return used_; }

 private:
  char* base_;
  size_t used_ = 0;
};

// How time is walked in one direction. Step s of T stands at time Time(s); a chunk of steps is a
// stretch of time, whichever way it is walked.
struct Walk {
  int64_t steps;
  bool reverse;
  int64_t chunk_steps;

  // Chunks have about max_rows rows at most, and at least one step.
  Walk(const LayerDesc& desc, int64_t direction, int64_t max_rows)
      : steps(desc.steps), reverse(direction == 1) {
    const int64_t chunks = std::min(steps, (desc.rows() + max_rows - 1) / max_rows);
    chunk_steps = (steps + chunks - 1) / chunks;
  }
  int64_t Time(int64_t step) const { return reverse ? steps - 1 - step : step; }
  int64_t End(int64_t first) const { return std::min(first + chunk_steps, steps); }
  // The earliest time of the chunk of steps [first, end).
  int64_t Begin(int64_t first, int64_t end) const { return reverse ? Time(end - 1) : Time(first); }
};

inline bool GatesInReserve(const LayerDesc& desc) {
  return desc.reserve && ReserveFactor(desc.mode) > 0;
}

// The reserve of one direction: activated gates [T, N, G*H], then [T, N, H] with c or GRU's
// hidden_n.
template <class T>
struct Reserve {
  T* gates = nullptr;
  T* extra = nullptr;
  Reserve(const LayerDesc& desc, T* base, int64_t direction) {
    if (!GatesInReserve(desc)) return;
    gates = base + direction * desc.rows() * ReserveFactor(desc.mode) * desc.hidden;
    extra = gates + desc.rows() * desc.gate_rows();
  }
};

}  // namespace fastrnn
