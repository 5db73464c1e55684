// Two layers, one on top of the other, at once: each works through time in waves of some steps, the
// lower one on the caller's stream and the upper one a wave behind it on a second one; backward the
// other way round. Steps are issued in turn, so that neither stream waits for the host.
//
// Each wave of the layer behind waits for an event, recorded after the same wave of the layer ahead
// and its product: forward for what that has put out, backward for its dx. Nothing else is shared.
#include <vector>

#include "backward_direction.h"
#include "forward_direction.h"
#include "side_stream.h"

namespace fastrnn {
namespace cuda {
namespace {

// Bytes, where there are several waves and the workspace is not too much; else 0.
size_t BytesIfAtOnce(const LayerDesc& desc, size_t bytes) {
  return HasWaves(desc) && bytes <= kMostBytesAtOnce ? bytes : 0;
}

// ---- forward ------------------------------------------------------------------------------------

template <class T>
struct ForwardPairBuffers {
  ForwardBuffers lower, upper;

  ForwardPairBuffers(const LayerDesc& lower_desc, const LayerDesc& upper_desc, Carver* carver)
      : lower(OfLayer(lower_desc, carver)), upper(OfLayer(upper_desc, carver)) {}

 private:
  static ForwardBuffers OfLayer(const LayerDesc& desc, Carver* carver) {
    return ForwardBuffers(desc, carver, SumsInReserve<T>(desc), 1, 1, WaveSteps(desc) * desc.batch);
  }
};

// The lower layer is on the caller's stream, which the side follows. A wave is a chunk.
template <class T>
void RunForward(const ForwardDirection<T>& lower, const ForwardDirection<T>& upper,
                SideStream* side) {
  const Walk& walk = lower.walk();
  const float *ahead_sums = nullptr, *behind_sums = nullptr;
  for (int64_t ahead = 0; ahead < walk.steps + walk.chunk_steps; ahead += walk.chunk_steps) {
    const int64_t behind = ahead - walk.chunk_steps;
    const bool has_ahead = ahead < walk.steps, has_behind = behind >= 0 && behind < walk.steps;
    if (has_ahead) ahead_sums = lower.Project(ahead);
    if (has_behind) behind_sums = upper.Project(behind);
    for (int64_t step = 0; step < walk.chunk_steps; ++step) {
      if (has_ahead && ahead + step < walk.End(ahead)) {
        lower.RunStep(ahead + step, ahead, ahead_sums);
      }
      if (has_behind && behind + step < walk.End(behind)) {
        upper.RunStep(behind + step, behind, behind_sums);
      }
    }
    if (has_ahead) side->Follow();
  }
}

// ---- backward -----------------------------------------------------------------------------------

template <class T>
struct BackwardPairBuffers {
  BackwardBuffers<T> lower, upper;

  BackwardPairBuffers(const LayerDesc& lower_desc, const LayerDesc& upper_desc, Carver* carver)
      : lower(lower_desc, carver), upper(upper_desc, carver) {}
};

// From the last steps on. A chunk, whose dgates are kept for the weights' gradients, has one wave
// or several.
std::vector<Stretch> BackwardWaves(const Walk& walk, int64_t wave_steps) {
  std::vector<Stretch> waves;
  for (int64_t first = walk.LastChunk(); first >= 0; first -= walk.chunk_steps) {
    for (int64_t end = walk.End(first); end > first; end -= wave_steps) {
      waves.push_back({first, std::max(end - wave_steps, first), end});
    }
  }
  return waves;
}

// The upper layer is on the caller's stream, which the side follows.
template <class T>
void RunBackward(const LayerDesc& desc, BackwardDirection<T>* lower, BackwardDirection<T>* upper,
                 SideStream* side) {
  const std::vector<Stretch> waves = BackwardWaves(upper->walk(), WaveSteps(desc));
  upper->Begin();
  lower->Begin();
  for (size_t wave = 0; wave <= waves.size(); ++wave) {
    const Stretch* ahead = wave < waves.size() ? &waves[wave] : nullptr;
    const Stretch* behind = wave > 0 ? &waves[wave - 1] : nullptr;
    for (int64_t step = 1; step <= WaveSteps(desc); ++step) {
      if (ahead != nullptr && ahead->end - step >= ahead->begin) {
        upper->RunStep(ahead->end - step, ahead->chunk);
      }
      if (behind != nullptr && behind->end - step >= behind->begin) {
        lower->RunStep(behind->end - step, behind->chunk);
      }
    }
    if (ahead != nullptr) {
      upper->InputGradient(*ahead);
      side->Follow();
      if (ahead->begin == ahead->chunk) upper->WeightGradients(ahead->chunk);
    }
    if (behind != nullptr) {
      lower->InputGradient(*behind);
      if (behind->begin == behind->chunk) lower->WeightGradients(behind->chunk);
    }
  }
  upper->End();
  lower->End();
}

}  // namespace

template <class T>
size_t StepwisePairForwardBytes(const LayerDesc& lower, const LayerDesc& upper) {
  Carver carver(nullptr);
  ForwardPairBuffers<T>(lower, upper, &carver);
  return BytesIfAtOnce(lower, carver.used());
}

template <class T>
size_t StepwisePairBackwardBytes(const LayerDesc& lower, const LayerDesc& upper) {
  Carver carver(nullptr);
  BackwardPairBuffers<T>(lower, upper, &carver);
  return BytesIfAtOnce(lower, carver.used());
}

template <class T>
void StepwisePairForward(const LayerDesc& lower, const ForwardArgs& lower_args,
                         const LayerDesc& upper, const ForwardArgs& upper_args, bool tf32) {
  Carver carver(lower_args.workspace);
  const ForwardPairBuffers<T> buffers(lower, upper, &carver);
  const auto stream = static_cast<cudaStream_t>(lower_args.stream);
  Blas blas(lower.device_index, stream, buffers.lower.blas[0], tf32);
  SideStream side(lower.device_index, stream);
  Blas side_blas(lower.device_index, side.get(), buffers.upper.blas[0], tf32, 1);
  RunForward(ForwardDirection<T>(lower, lower_args, buffers.lower, &blas, stream, 0),
             ForwardDirection<T>(upper, upper_args, buffers.upper, &side_blas, side.get(), 0),
             &side);
  side.Join();
}

template <class T>
void StepwisePairBackward(const LayerDesc& lower, const BackwardArgs& lower_args,
                          const LayerDesc& upper, const BackwardArgs& upper_args, bool tf32) {
  Carver carver(lower_args.workspace);
  const BackwardPairBuffers<T> buffers(lower, upper, &carver);
  const auto stream = static_cast<cudaStream_t>(lower_args.stream);
  Blas blas(lower.device_index, stream, buffers.upper.blas, tf32);
  SideStream side(lower.device_index, stream);
  Blas side_blas(lower.device_index, side.get(), buffers.lower.blas, tf32, 1);
  BackwardDirection<T> above(upper, upper_args, buffers.upper, &blas, stream, 0);
  BackwardDirection<T> below(lower, lower_args, buffers.lower, &side_blas, side.get(), 0);
  RunBackward(lower, &below, &above, &side);
  side.Join();
}

#define FASTRNN_INSTANTIATE(T)                                                                  \
  template size_t StepwisePairForwardBytes<T>(const LayerDesc& lower, const LayerDesc& upper);  \
  template size_t StepwisePairBackwardBytes<T>(const LayerDesc& lower, const LayerDesc& upper); \
  template void StepwisePairForward<T>(const LayerDesc& lower, const ForwardArgs& lower_args,   \
                                       const LayerDesc& upper, const ForwardArgs& upper_args,   \
                                       bool tf32);                                              \
  template void StepwisePairBackward<T>(const LayerDesc& lower, const BackwardArgs& lower_args, \
                                        const LayerDesc& upper, const BackwardArgs& upper_args, \
                                        bool tf32);
FASTRNN_INSTANTIATE(float)
FASTRNN_INSTANTIATE(Half)
FASTRNN_INSTANTIATE(Bfloat16)
#undef FASTRNN_INSTANTIATE

}  // namespace cuda
}  // namespace fastrnn
