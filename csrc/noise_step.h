// A step of a layer with noise (rnn.h): the step as it is without, on arrays of its own, between
// two passes over its rows.
//
//   forward   masks what the step reads as h; then mixes new states with those before
//   backward  splits the gradients of the states between both; then adds those of what was read
#pragma once

#include <cstdint>

#include "layout.h"
#include "noise.h"
#include "step.h"

namespace fastrnn {

// What steps read as h has one mask for all of them: the host draws it once.
inline void* TakeReadMask(const LayerDesc& desc, Carver* carver) {
  if (desc.noise.drop_states == 0 || desc.device != Device::kCpu) return nullptr;
  return carver->Take<char>(desc.batch * desc.outputs() * AccumulatorSize(desc.dtype));
}

// ---- forward ------------------------------------------------------------------------------------

// Of one direction in the workspace, unless they are in the reserve.
struct ForwardNoiseArrays {
  void* read = nullptr;       // [N, P] of the layer's type, if it drops states
  void* read_mask = nullptr;  // [N, P] of its accumulator, likewise, on the host
  void* h_new = nullptr;      // [N, P] of the layer's type
  void* c_new = nullptr;      // [N, H] of its accumulator, if there is zoneout of c

  void Take(const LayerDesc& desc, Carver* carver) {
    if (!desc.noise.any()) return;
    const int64_t outputs = desc.batch * desc.outputs() * SizeOf(desc.dtype);
    if (desc.noise.drop_states > 0) read = carver->Take<char>(outputs);
    read_mask = TakeReadMask(desc, carver);
    h_new = carver->Take<char>(outputs);
    if (!KeepsNewC(desc)) return;
    c_new = carver->Take<char>(desc.batch * desc.hidden * AccumulatorSize(desc.dtype));
  }
};

// What a step has beside ForwardStep.
template <class T>
struct ForwardNoise {
  using Sum = Accumulator<T>;

  Masks<Sum> masks;
  bool first;         // whether this is the first step that is run
  int64_t first_row;  // of the batch
  Sum* read_mask;     // [N, P]; null: read is h_prev, or the host has no mask
  T* read;            // [N, P] what the step reads as h, zeros past a row's length; null: h_prev
  T* h_new;           // [N, P] h before zoneout
  Sum* c_new;         // [N, H] c before zoneout; null if it stays as it is

  ForwardNoise OfRows(int64_t first_of_rows, int hidden, int outputs) const {
    const int64_t units = first_of_rows * hidden, values = first_of_rows * outputs;
    return {masks,          first,           first_of_rows, At(read_mask, values), At(read, values),
            h_new + values, At(c_new, units)};
  }
};

template <class T>
ForwardStep<T> WithoutNoise(ForwardStep<T> step, const ForwardNoise<T>& noise) {
  if (noise.read != nullptr) step.h_prev = noise.read;
  step.h = step.y = noise.h_new;
  step.y_stride = step.outputs;
  if (noise.c_new == nullptr) return step;
  step.c = noise.c_new;
  step.c_n = nullptr;
  return step;
}

// ---- backward -----------------------------------------------------------------------------------

// Of one direction in the workspace.
template <class T>
struct BackwardNoiseArrays {
  using Sum = Accumulator<T>;

  void* read_mask = nullptr;  // as forward
  Sum* dh_new = nullptr;      // [N, P]
  Sum* dc_kept = nullptr;     // [N, H], if there is zoneout of c
  T* zeros = nullptr;         // [N, P]

  void Take(const LayerDesc& desc, Carver* carver) {
    if (!desc.noise.any()) return;
    read_mask = TakeReadMask(desc, carver);
    dh_new = carver->Take<Sum>(desc.batch * desc.outputs());
    if (KeepsNewC(desc)) dc_kept = carver->Take<Sum>(desc.batch * desc.hidden);
    zeros = carver->Take<T>(desc.batch * desc.outputs());
  }
};

// What a step has beside BackwardStep.
template <class T>
struct BackwardNoise {
  using Sum = Accumulator<T>;

  Masks<Sum> masks;
  bool first;  // up to read_mask as in ForwardNoise
  int64_t first_row;
  Sum* read_mask;
  const T* read;     // [N, P]; null: backward does not need it
  const T* h_new;    // [N, P]; null as read
  const Sum* c_new;  // [N, H]; null: c
  Sum* dh_new;       // [N, P] gradient of h before zoneout; then of what the step read
  Sum* dc_kept;      // [N, H] the share of dc that passes by the cell; null: none
  const T* zeros;    // [N, P]

  BackwardNoise OfRows(int64_t first_of_rows, int hidden, int outputs) const {
    const int64_t units = first_of_rows * hidden, values = first_of_rows * outputs;
    return {masks,
            first,
            first_of_rows,
            At(read_mask, values),
            At(read, values),
            At(h_new, values),
            At(c_new, units),
            dh_new + values,
            At(dc_kept, units),
            zeros + values};
  }
};

template <class T>
BackwardStep<T> WithoutNoise(BackwardStep<T> step, const BackwardNoise<T>& noise) {
  step.dh = noise.dh_new;
  step.dh_n = nullptr;
  step.dy = noise.zeros;
  step.y = noise.h_new != nullptr ? noise.h_new : noise.zeros;
  step.h_0 = step.h_prev = noise.read != nullptr ? noise.read : noise.zeros;
  step.y_stride = step.outputs;
  if (noise.c_new == nullptr) return step;
  step.c = noise.c_new;
  step.dc_n = step.dc_0 = nullptr;
  return step;
}

}  // namespace fastrnn
