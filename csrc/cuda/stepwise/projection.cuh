// The kernels of a projected layer's step, beside those of its cells. Threads and blocks are as for
// a step's cells, with outputs in the place of hidden units.
#pragma once

#include "pointwise.cuh"

namespace fastrnn {
namespace cuda {

// Writes the output and h. projected: [N, P], the product with r.
template <class T>
FASTRNN_DEVICE void ProjectUnit(const ForwardStep<T>& p, const float* projected, Place at) {
  const bool active = IsActive(p, at);
  const T h = active ? FromFloat<T>(projected[at.state()]) : p.h_prev[at.state()];
  p.h[at.state()] = h;
  p.y[at.strided(p.y_stride)] = active ? h : FromFloat<T>(0.0f);
}

// Sums the gradient of h, before its product with the projection's weights gives that of r.
template <class T>
FASTRNN_DEVICE void ProjectUnit(const BackwardStep<T>& p, const float*, Place at) {
  const bool active = PresenceOf(p, at).active;
  const float dh = p.dh_n != nullptr ? ToFloat(p.dh_n[at.state()]) : p.dh[at.state()];
  const float total = active ? ToFloat(p.dy[at.strided(p.y_stride)]) + dh : 0.0f;
  p.dh_total[at.state()] = FromFloat<T>(total);
  if (p.dh_wanted) p.dh[at.state()] = active ? 0.0f : dh;
}

template <class Arguments>
__global__ void __launch_bounds__(kStepThreads)
    ProjectKernel(const Arguments p, const float* projected) {
  const int unit = static_cast<int>(blockIdx.x * kStepThreads + threadIdx.x);
  if (unit >= p.outputs) return;
  for (unsigned row = blockIdx.y; row < static_cast<unsigned>(p.rows); row += gridDim.y) {
    ProjectUnit(p, projected, {static_cast<int>(row), unit, p.outputs});
  }
}

}  // namespace cuda
}  // namespace fastrnn
