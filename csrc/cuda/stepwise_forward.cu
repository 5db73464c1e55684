#include "forward_direction.h"

namespace fastrnn {
namespace cuda {
namespace {

template <class T>
ForwardBuffers BuffersOf(const LayerDesc& desc, Carver* carver) {
  return ForwardBuffers(desc, carver, SumsInReserve<T>(desc), 1);
}

}  // namespace

template <class T>
size_t StepwiseForwardBytes(const LayerDesc& desc) {
  Carver carver(nullptr);
  BuffersOf<T>(desc, &carver);
  return carver.used();
}

template <class T>
void StepwiseForward(const LayerDesc& desc, const ForwardArgs& args, bool tf32) {
  Carver carver(args.workspace);
  const ForwardBuffers buffers = BuffersOf<T>(desc, &carver);
  Blas blas(desc.device_index, args.stream, buffers.blas, tf32);
  for (int64_t d = 0; d < desc.directions; ++d) {
    const ForwardDirection<T> direction(desc, args, buffers, &blas, d);
    for (int64_t first = 0; first < desc.steps; first = direction.walk().End(first)) {
      direction.RunSteps({first, first, direction.walk().End(first)}, direction.Project(first));
    }
  }
}

#define FASTRNN_INSTANTIATE(T)                                    \
  template size_t StepwiseForwardBytes<T>(const LayerDesc& desc); \
  template void StepwiseForward<T>(const LayerDesc& desc, const ForwardArgs& args, bool tf32);
FASTRNN_INSTANTIATE(float)
FASTRNN_INSTANTIATE(Half)
FASTRNN_INSTANTIATE(Bfloat16)
#undef FASTRNN_INSTANTIATE

}  // namespace cuda
}  // namespace fastrnn
