// The vanilla (Elman 1990) cell for one hidden unit of one row: h = tanh(a) or relu(a). Both
// derivatives follow from h alone.
#pragma once

#include "math.h"

namespace fastrnn {
namespace cell {

struct TanhActivation {
  static FASTRNN_HOST_DEVICE float Forward(float a) { return Tanh(a); }
  static FASTRNN_HOST_DEVICE float Backward(float h, float dh) { return dh * (1.0f - h * h); }
};

struct ReluActivation {
  static FASTRNN_HOST_DEVICE float Forward(float a) { return Relu(a); }
  static FASTRNN_HOST_DEVICE float Backward(float h, float dh) { return h > 0.0f ? dh : 0.0f; }
};

}  // namespace cell
}  // namespace fastrnn
