#include "backward_direction.h"

namespace fastrnn {
namespace cuda {

template <class T>
size_t StepwiseBackwardBytes(const LayerDesc& desc) {
  Carver carver(nullptr);
  BackwardBuffers<T>(desc, &carver);
  return carver.used();
}

template <class T>
void StepwiseBackward(const LayerDesc& desc, const BackwardArgs& args, bool tf32) {
  Carver carver(args.workspace);
  const BackwardBuffers<T> buffers(desc, &carver);
  Blas blas(desc.device_index, args.stream, buffers.blas, tf32);
  for (int64_t d = 0; d < desc.directions; ++d) {
    BackwardDirection<T> direction(desc, args, buffers, &blas, d);
    const Walk& walk = direction.walk();
    direction.Begin();
    for (int64_t first = walk.LastChunk(); first >= 0; first -= walk.chunk_steps) {
      direction.RunSteps({first, first, walk.End(first)});
      direction.SumChunk(first);
    }
    direction.End();
  }
}

#define FASTRNN_INSTANTIATE(T)                                     \
  template size_t StepwiseBackwardBytes<T>(const LayerDesc& desc); \
  template void StepwiseBackward<T>(const LayerDesc& desc, const BackwardArgs& args, bool tf32);
FASTRNN_INSTANTIATE(float)
FASTRNN_INSTANTIATE(Half)
FASTRNN_INSTANTIATE(Bfloat16)
#undef FASTRNN_INSTANTIATE

}  // namespace cuda
}  // namespace fastrnn
