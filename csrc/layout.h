// How a layer's work is laid out in time and in memory, for every backend.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "rnn.h"

namespace fastrnn {

// What a layer of type T computes in: the type of its sums of products, its cells' arithmetic and
// what is carried from step to step.
template <class T>
using Accumulator =
    std::conditional_t<std::is_same<std::remove_const_t<T>, double>::value, double, float>;
// Whether arrays of type T hold such numbers as they are, and so partial sums too.
template <class T>
constexpr bool kHoldsSums = std::is_same<std::remove_const_t<T>, Accumulator<T>>::value;

// Its bytes; type is that of the layer.
constexpr int64_t AccumulatorSize(DType type) { return std::max<int64_t>(SizeOf(type), 4); }

// How a product's factor is stored.
enum class Transpose : char { kNo = 'N', kYes = 'T' };

// Carves arrays from a workspace; with a null base it only counts bytes.
class Carver {
 public:
  explicit Carver(void* base) : base_(static_cast<char*>(base)) {}
  template <class T>
  T* Take(size_t count) {
    T* array = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    used_ = Round(used_ + count * sizeof(T));
    return array;
  }
  // The bytes that an array of this many takes.
  static size_t Round(size_t bytes) {
    return (bytes + kWorkspaceAlignment - 1) / kWorkspaceAlignment * kWorkspaceAlignment;
  }
  size_t used() const { return used_; }

 private:
  char* base_;
  size_t used_ = 0;
};

// How one direction walks through time. Step s of T is at time Time(s). A chunk of steps is a
// contiguous range of time in both directions.
struct Walk {
  int64_t steps;
  bool reverse;
  int64_t chunk_steps;

  // Chunks have at most about max_rows rows, and at least one step.
  Walk(const LayerDesc& desc, int64_t direction, int64_t max_rows)
      : steps(desc.steps), reverse(direction == 1) {
    const int64_t chunks = std::min(steps, (desc.rows() + max_rows - 1) / max_rows);
    chunk_steps = (steps + chunks - 1) / chunks;
  }
  int64_t Time(int64_t step) const { return reverse ? steps - 1 - step : step; }
  int64_t End(int64_t first) const { return std::min(first + chunk_steps, steps); }
  // The first step of the last chunk, which may be shorter.
  int64_t LastChunk() const { return (steps - 1) / chunk_steps * chunk_steps; }
  // The earliest time of the chunk of steps [first, end).
  int64_t Begin(int64_t first, int64_t end) const { return reverse ? Time(end - 1) : Time(first); }
};

// Steps begin to end - 1 of the chunk whose first step is `chunk`.
struct Stretch {
  int64_t chunk, begin, end;
};

// What a layer normalisation adds to variances: the default of MXNet's operator, which takes it in
// float32 for all types.
constexpr float kNormEpsilon = 1e-5f;

// How many parts of a row of gates are layer-normalised, each by itself: all gates of an LSTM; r
// and z of a GRU, and n. 0 for cells without a layer normalisation.
inline int NormParts(const LayerDesc& desc) {
  return !desc.cell().keeps_gates ? 0 : desc.cell().split_shares ? 2 : 1;
}
// The values of the first part; a second one has H.
inline int64_t FirstNormPart(const LayerDesc& desc) {
  return desc.gate_rows() - (desc.cell().split_shares ? desc.hidden : 0);
}

// A layer's part of the reserve: what backward needs beyond inputs and outputs, in words of 4 bytes
// for each step, row, direction and hidden unit. The activated gates, the hidden state's share of
// the last gate, the cells' output before a projection and the normalised products are in the
// layer's type, c in that of its accumulator. 0 for cells whose backward needs only the output.
inline int64_t UnitReserveWords(const LayerDesc& desc) {
  const CellTraits& cell = desc.cell();
  if (!cell.keeps_gates) return 0;
  const int64_t values = cell.gates * (desc.layer_norm ? 3 : 1) + (cell.split_shares ? 1 : 0) +
                         (desc.projected() ? 1 : 0);
  const int64_t c = cell.has_c ? AccumulatorSize(desc.dtype) : 0;
  return (values * SizeOf(desc.dtype) + 3) / 4 + c / 4;
}
// Words for each step, row and direction besides: the reciprocal standard deviations of the parts
// of both products, and of an LSTM's c, with its mean.
inline int64_t NormReserveWords(const LayerDesc& desc) {
  const int64_t values = 2 * NormParts(desc) + (desc.has_c() ? 2 : 0);
  return desc.layer_norm ? values * AccumulatorSize(desc.dtype) / 4 : 0;
}
inline int64_t DirectionReserveWords(const LayerDesc& desc) {
  return desc.hidden * UnitReserveWords(desc) + NormReserveWords(desc);
}

// What a layer with noise keeps beside that, for each direction: c before zoneout, if it is not c;
// what steps read as h, if that is not h or the cell's backward reads it; and h before zoneout, if
// the cell's backward computes from that.
inline bool KeepsNewC(const LayerDesc& desc) {
  return desc.has_c() && desc.noise.zoneout_states > 0;
}
inline bool KeepsRead(const LayerDesc& desc) {
  return desc.noise.drop_states > 0 || (desc.noise.any() && desc.cell().split_shares);
}
inline bool KeepsNewH(const LayerDesc& desc) {
  return desc.noise.any() && !desc.cell().keeps_gates;
}
// In words of 4 bytes for each step and row.
inline int64_t NoiseReserveWords(const LayerDesc& desc) {
  const int64_t of_row =
      (KeepsRead(desc) ? desc.outputs() : 0) + (KeepsNewH(desc) ? desc.hidden : 0);
  const int64_t c = KeepsNewC(desc) ? desc.hidden * AccumulatorSize(desc.dtype) : 0;
  return (of_row * SizeOf(desc.dtype) + 3) / 4 + c / 4;
}

inline int64_t LayerReserveWords(const LayerDesc& desc) {
  return desc.directions * (DirectionReserveWords(desc) + NoiseReserveWords(desc));
}

inline bool GatesInReserve(const LayerDesc& desc) {
  return desc.reserve && desc.cell().keeps_gates;
}

// The reserve of one direction: c [T, N, H] (LSTM), then activated gates [T, N, G*H], hidden_n
// [T, N, H] (GRU) and r [T, N, H] (if projected) in the layer's type T. If the layer is normalised,
// reciprocal standard deviations of the input's and the hidden state's product [T, N, parts] and
// c's mean and reciprocal standard deviation [T, N, 2] (LSTM) come after c, and both products with
// mean 0 and variance 1 [T, N, G*H] last. All are null without a reserve.
template <class T>
struct Reserve {
  template <class Value>
  using Like = std::conditional_t<std::is_const<T>::value, const Value, Value>;
  using Sum = Like<Accumulator<T>>;

  Sum* c = nullptr;
  T* gates = nullptr;
  T* hidden_n = nullptr;
  T* r = nullptr;
  Sum *input_rstd = nullptr, *hidden_rstd = nullptr, *c_moments = nullptr;
  T *normalized_input = nullptr, *normalized_hidden = nullptr;
  Reserve(const LayerDesc& desc, Like<void>* base, int64_t direction) {
    if (!GatesInReserve(desc)) return;
    const int64_t values = desc.rows() * desc.hidden;
    const int64_t bytes = desc.rows() * DirectionReserveWords(desc) * 4;
    auto* array = static_cast<Like<char>*>(base) + direction * bytes;
    if (desc.has_c()) {
      c = reinterpret_cast<Sum*>(array);
      array += values * sizeof(Sum);
    }
    if (desc.layer_norm) {
      input_rstd = reinterpret_cast<Sum*>(array);
      hidden_rstd = input_rstd + desc.rows() * NormParts(desc);
      if (desc.has_c()) c_moments = hidden_rstd + desc.rows() * NormParts(desc);
      array += desc.rows() * NormReserveWords(desc) * 4;
    }
    gates = reinterpret_cast<T*>(array);
    T* const others = gates + desc.rows() * desc.gate_rows();
    if (desc.cell().split_shares) hidden_n = others;
    if (desc.projected()) r = others;  // an LSTM's shares are not split
    if (!desc.layer_norm) return;
    normalized_input = others + (desc.cell().split_shares ? values : 0);
    normalized_hidden = normalized_input + desc.rows() * desc.gate_rows();
  }
};

// One direction's part for noise, behind the parts above of all directions: c before zoneout
// [T, N, H], then what steps read as h [T, N, P] and h before zoneout [T, N, H]. Null if it is not
// kept.
template <class T>
struct NoiseReserve {
  template <class Value>
  using Like = std::conditional_t<std::is_const<T>::value, const Value, Value>;
  using Sum = Like<Accumulator<T>>;

  Sum* c = nullptr;
  T* read = nullptr;
  T* h = nullptr;
  NoiseReserve(const LayerDesc& desc, Like<void>* base, int64_t direction) {
    if (!desc.reserve || !desc.noise.any()) return;
    const int64_t rows = desc.rows();
    const int64_t words = rows * (desc.directions * DirectionReserveWords(desc) +
                                  direction * NoiseReserveWords(desc));
    auto* array = static_cast<Like<char>*>(base) + words * 4;
    if (KeepsNewC(desc)) {
      c = reinterpret_cast<Sum*>(array);
      array += rows * desc.hidden * static_cast<int64_t>(sizeof(Sum));
    }
    T* others = reinterpret_cast<T*>(array);
    if (KeepsRead(desc)) {
      read = others;
      others += rows * desc.outputs();
    }
    if (KeepsNewH(desc)) h = others;
  }
};

// One direction's parameters in the layer's type T, const for Weights and mutable for
// WeightGradients.
template <class T>
struct Parameters {
  T *i2h_weight, *h2h_weight, *i2h_bias, *h2h_bias, *h2r_weight;
  T *i2h_gamma, *h2h_gamma, *c_gamma, *c_beta;
  template <class Untyped>
  explicit Parameters(const Untyped& untyped)
      : i2h_weight(static_cast<T*>(untyped.i2h_weight)),
        h2h_weight(static_cast<T*>(untyped.h2h_weight)),
        i2h_bias(static_cast<T*>(untyped.i2h_bias)),
        h2h_bias(static_cast<T*>(untyped.h2h_bias)),
        h2r_weight(static_cast<T*>(untyped.h2r_weight)),
        i2h_gamma(static_cast<T*>(untyped.i2h_gamma)),
        h2h_gamma(static_cast<T*>(untyped.h2h_gamma)),
        c_gamma(static_cast<T*>(untyped.c_gamma)),
        c_beta(static_cast<T*>(untyped.c_beta)) {}
};

// An address in an array that some cells lack: null stays null.
template <class T>
T* At(T* array, int64_t index) {
  return array == nullptr ? nullptr : array + index;
}

// One direction's part of a state: h [D, N, P] or c [D, N, H].
template <class T, class Untyped>
T* HiddenOf(const LayerDesc& desc, Untyped* states, int64_t direction) {
  return At(static_cast<T*>(states), direction * desc.batch * desc.outputs());
}
template <class T, class Untyped>
T* CellOf(const LayerDesc& desc, Untyped* states, int64_t direction) {
  return At(static_cast<T*>(states), direction * desc.batch * desc.hidden);
}

// Values of a row of the sums that a step works on: of the gates or, later, of the projection.
inline int64_t SumsOfRow(const LayerDesc& desc) {
  return std::max(desc.gate_rows(), desc.outputs());
}

}  // namespace fastrnn
