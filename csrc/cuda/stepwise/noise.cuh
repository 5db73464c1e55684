// The kernels before and after a step with noise (noise_step.h). A thread computes one unit of one
// row of h, and of c where there is zoneout of c.
#pragma once

#include "../../noise_step.h"
#include "pointwise.cuh"

namespace fastrnn {
namespace cuda {

// One thread; a seed stays on the device.
[[maybe_unused]] static __global__ void KeyKernel(const float* seed, Key* key) {
  *key = KeyOf(seed);
}

template <class T>
FASTRNN_DEVICE void BeginUnit(const ForwardStep<T>& p, const ForwardNoise<T>& noise, const Key& key,
                              int row, int unit) {
  if (noise.read == nullptr || unit >= p.outputs) return;
  const Place at = {row, unit, p.outputs};
  float read = 0.0f;
  if (IsActive(p, at)) {
    read = noise.masks.Draw(key, Mask::kRead, noise.first_row + row, p.time, unit) *
           ToFloat(p.h_prev[at.state()]);
  }
  noise.read[at.state()] = FromFloat<T>(read);
}

template <class T>
FASTRNN_DEVICE void EndUnit(const ForwardStep<T>& p, const ForwardNoise<T>& noise, const Key& key,
                            int row, int unit) {
  if (unit < p.outputs) {
    const Place at = {row, unit, p.outputs};
    const bool active = IsActive(p, at);
    float h = ToFloat(p.h_prev[at.state()]);
    if (active) {
      h = Mixed(noise.masks.Draw(key, Mask::kKeptH, noise.first_row + row, p.time, unit), h,
                ToFloat(noise.h_new[at.state()]));
    }
    p.h[at.state()] = FromFloat<T>(h);
    p.y[at.strided(p.y_stride)] = FromFloat<T>(active ? h : 0.0f);
  }
  if (noise.c_new == nullptr || unit >= p.hidden) return;
  const Place at = {row, unit, p.hidden};
  float c = p.c_0 != nullptr ? ToFloat(p.c_0[at.state()]) : p.c_prev[at.state()];
  if (IsActive(p, at)) {
    c = Mixed(noise.masks.Draw(key, Mask::kKeptC, noise.first_row + row, p.time, unit), c,
              noise.c_new[at.state()]);
  }
  p.c[at.state()] = c;
  if (p.c_n != nullptr) p.c_n[at.state()] = FromFloat<T>(c);
}

template <class T>
FASTRNN_DEVICE void BeginUnit(const BackwardStep<T>& p, const BackwardNoise<T>& noise,
                              const Key& key, int row, int unit) {
  if (unit < p.outputs) {
    const Place at = {row, unit, p.outputs};
    float kept = p.dh_n != nullptr ? ToFloat(p.dh_n[at.state()]) : p.dh[at.state()],
          entering = 0.0f;
    if (PresenceOf(p, at).active) {
      const float total = ToFloat(p.dy[at.strided(p.y_stride)]) + kept;
      const float share = noise.masks.Draw(key, Mask::kKeptH, noise.first_row + row, p.time, unit);
      kept = share * total;
      entering = (1.0f - share) * total;
    }
    p.dh[at.state()] = kept;
    noise.dh_new[at.state()] = entering;
  }
  if (noise.dc_kept == nullptr || unit >= p.hidden) return;
  const Place at = {row, unit, p.hidden};
  const float dc = p.dc_n != nullptr ? ToFloat(p.dc_n[at.state()]) : p.dc[at.state()];
  float share = 0.0f;  // a row past its length keeps its gradient
  if (PresenceOf(p, at).active)
    share = noise.masks.Draw(key, Mask::kKeptC, noise.first_row + row, p.time, unit);
  noise.dc_kept[at.state()] = share * dc;
  p.dc[at.state()] = (1.0f - share) * dc;
}

template <class T>
FASTRNN_DEVICE void EndUnit(const BackwardStep<T>& p, const BackwardNoise<T>& noise, const Key& key,
                            int row, int unit) {
  if (unit < p.outputs) {
    const Place at = {row, unit, p.outputs};
    if (PresenceOf(p, at).active) {
      p.dh[at.state()] += noise.masks.Draw(key, Mask::kRead, noise.first_row + row, p.time, unit) *
                          noise.dh_new[at.state()];
    }
  }
  if (noise.dc_kept == nullptr || unit >= p.hidden) return;
  const size_t at = Place{row, unit, p.hidden}.state();
  const float dc = p.dc[at] + noise.dc_kept[at];
  p.dc[at] = dc;
  if (p.dc_0 != nullptr) p.dc_0[at] = FromFloat<T>(dc);
}

// Launched with StepGrid for the larger of both states.
template <bool kBegins, class Arguments, class Noise>
__global__ void __launch_bounds__(kStepThreads)
    NoiseKernel(const Arguments p, const Noise noise, const Key* key) {
  const int unit = static_cast<int>(blockIdx.x * kStepThreads + threadIdx.x);
  for (unsigned row = blockIdx.y; row < static_cast<unsigned>(p.rows); row += gridDim.y) {
    if (kBegins) {
      BeginUnit(p, noise, *key, static_cast<int>(row), unit);
    } else {
      EndUnit(p, noise, *key, static_cast<int>(row), unit);
    }
  }
}

// The base of the backend's Work.
class NoiseWork {
 public:
  NoiseWork(cudaStream_t stream, const Key* key) : stream_(stream), key_(key) {}

  template <class Arguments, class Noise>
  void BeginNoise(const Arguments& step, const Noise& noise) const {
    LaunchNoise<true>(step, noise);
  }
  template <class Arguments, class Noise>
  void EndNoise(const Arguments& step, const Noise& noise) const {
    LaunchNoise<false>(step, noise);
  }

 private:
  template <bool kBegins, class Arguments, class Noise>
  void LaunchNoise(const Arguments& step, const Noise& noise) const {
    const dim3 grid = StepGrid(step.rows, step.hidden > step.outputs ? step.hidden : step.outputs);
    FASTRNN_CUDA_TRY(Launch(NoiseKernel<kBegins, Arguments, Noise>, grid, kStepThreads, 0, stream_,
                            step, noise, key_));
  }

  cudaStream_t stream_;
  const Key* key_;
};

// In the workspace, if there is noise.
inline Key* TakeKey(const LayerDesc& desc, Carver* carver) {
  return desc.noise.any() ? carver->Take<Key>(1) : nullptr;
}
inline void LoadKey(const LayerDesc& desc, const float* seed, Key* key, cudaStream_t stream) {
  if (desc.noise.any()) FASTRNN_CUDA_TRY(Launch(KeyKernel, 1, 1, 0, stream, seed, key));
}

}  // namespace cuda
}  // namespace fastrnn
