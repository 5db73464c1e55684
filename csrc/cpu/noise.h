// The passes of a step with noise (noise_step.h), vectorised.
#pragma once

#include "../noise_step.h"
#include "vectors/philox.h"

namespace fastrnn {
namespace cpu {

// The base of the backend's Work.
class NoiseWork {
 public:
  explicit NoiseWork(const Key& key) : keys_(key) {}

  template <class T>
  void BeginNoise(const ForwardStep<T>& step, const ForwardNoise<T>& noise) const;
  template <class T>
  void EndNoise(const ForwardStep<T>& step, const ForwardNoise<T>& noise) const;
  template <class T>
  void BeginNoise(const BackwardStep<T>& step, const BackwardNoise<T>& noise) const;
  template <class T>
  void EndNoise(const BackwardStep<T>& step, const BackwardNoise<T>& noise) const;

 private:
  RoundKeys keys_;
};

}  // namespace cpu
}  // namespace fastrnn
