// Two layers, one on top of the other, at once: each works through time in waves of some steps, the
// lower one on the caller's stream and the upper one a wave behind it on a second one; backward the
// other way round. Steps are issued in turn, so that neither stream waits for the host.
//
// Each wave of the layer behind waits for an event, recorded after the same wave of the layer ahead
// and its product: forward for what that has put out, backward for its dx. Nothing else is shared.
// Where a mask stands between them, it is the upper layer that multiplies by it, wave by wave:
// forward before its own product, backward after that and before the event.
#include <vector>

#include "backward_direction.h"
#include "forward_direction.h"
#include "mask.cuh"
#include "side_stream.h"

namespace fastrnn {
namespace cuda {
namespace {

// Bytes, where there are several waves and the workspace is not too much; else 0.
size_t BytesIfAtOnce(const LayerDesc& desc, size_t bytes) {
  return HasWaves(desc) && bytes <= kMostBytesAtOnce ? bytes : 0;
}

// Multiplies steps of what is handed from one layer to the other by the mask, where there is one.
template <class T>
class StepsMask {
 public:
  // values, product: [T, N, H], which may be one array.
  StepsMask(const LayerDesc& desc, const void* values, const void* mask, void* product,
            cudaStream_t stream)
      : step_(desc.batch * desc.hidden),
        values_(static_cast<const T*>(values)),
        mask_(static_cast<const T*>(mask)),
        product_(static_cast<T*>(product)),
        stream_(stream) {}

  void Apply(int64_t begin, int64_t end) const {
    if (mask_ == nullptr) return;
    const int64_t first = begin * step_;
    LaunchMask(values_ + first, mask_ + first, (end - begin) * step_, product_ + first, stream_);
  }

 private:
  int64_t step_;  // how many values it has
  const T* values_;
  const T* mask_;
  T* product_;
  cudaStream_t stream_;
};

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
                const StepsMask<T>& between, SideStream* side) {
  const Walk& walk = lower.walk();
  const float *ahead_sums = nullptr, *behind_sums = nullptr;
  for (int64_t ahead = 0; ahead < walk.steps + walk.chunk_steps; ahead += walk.chunk_steps) {
    const int64_t behind = ahead - walk.chunk_steps;
    const bool has_ahead = ahead < walk.steps, has_behind = behind >= 0 && behind < walk.steps;
    if (has_ahead) ahead_sums = lower.Project(ahead);
    if (has_behind) {
      between.Apply(behind, walk.End(behind));
      behind_sums = upper.Project(behind);
    }
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
                 const StepsMask<T>& between, SideStream* side) {
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
      between.Apply(ahead->begin, ahead->end);
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
                         const LayerDesc& upper, const ForwardArgs& upper_args,
                         const MaskedInput& between, bool tf32) {
  Carver carver(lower_args.workspace);
  const ForwardPairBuffers<T> buffers(lower, upper, &carver);
  const auto stream = static_cast<cudaStream_t>(lower_args.stream);
  Blas blas(lower.device_index, stream, buffers.lower.blas[0], tf32);
  SideStream side(lower.device_index, stream);
  Blas side_blas(lower.device_index, side.get(), buffers.upper.blas[0], tf32, 1);
  RunForward(ForwardDirection<T>(lower, lower_args, buffers.lower, &blas, stream, 0),
             ForwardDirection<T>(upper, upper_args, buffers.upper, &side_blas, side.get(), 0),
             StepsMask<T>(lower, lower_args.y, between.mask, between.x, side.get()), &side);
  side.Join();
}

template <class T>
void StepwisePairBackward(const LayerDesc& lower, const BackwardArgs& lower_args,
                          const LayerDesc& upper, const BackwardArgs& upper_args,
                          const MaskedInput& between, bool tf32) {
  Carver carver(lower_args.workspace);
  const BackwardPairBuffers<T> buffers(lower, upper, &carver);
  const auto stream = static_cast<cudaStream_t>(lower_args.stream);
  Blas blas(lower.device_index, stream, buffers.upper.blas, tf32);
  SideStream side(lower.device_index, stream);
  Blas side_blas(lower.device_index, side.get(), buffers.lower.blas, tf32, 1);
  BackwardDirection<T> above(upper, upper_args, buffers.upper, &blas, stream, 0);
  BackwardDirection<T> below(lower, lower_args, buffers.lower, &side_blas, side.get(), 0);
  const StepsMask<T> mask(lower, upper_args.dx, between.mask, upper_args.dx, stream);
  RunBackward(lower, &below, &above, mask, &side);
  side.Join();
}

#define FASTRNN_INSTANTIATE(T)                                                                  \
  template size_t StepwisePairForwardBytes<T>(const LayerDesc& lower, const LayerDesc& upper);  \
  template size_t StepwisePairBackwardBytes<T>(const LayerDesc& lower, const LayerDesc& upper); \
  template void StepwisePairForward<T>(const LayerDesc& lower, const ForwardArgs& lower_args,   \
                                       const LayerDesc& upper, const ForwardArgs& upper_args,   \
                                       const MaskedInput& between, bool tf32);                  \
  template void StepwisePairBackward<T>(const LayerDesc& lower, const BackwardArgs& lower_args, \
                                        const LayerDesc& upper, const BackwardArgs& upper_args, \
                                        const MaskedInput& between, bool tf32);
FASTRNN_INSTANTIATE(float)
FASTRNN_INSTANTIATE(Half)
FASTRNN_INSTANTIATE(Bfloat16)
#undef FASTRNN_INSTANTIATE

}  // namespace cuda
}  // namespace fastrnn
