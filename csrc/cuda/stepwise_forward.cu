#include <vector>

#include "forward_direction.h"
#include "side_stream.h"

namespace fastrnn {
namespace cuda {
namespace {

template <class T>
ForwardBuffers BuffersOf(const LayerDesc& desc, int64_t streams, Carver* carver) {
  return ForwardBuffers(desc, carver, SumsInReserve<T>(desc), streams, streams);
}

template <class T>
size_t BytesOf(const LayerDesc& desc, int64_t streams) {
  Carver carver(nullptr);
  BuffersOf<T>(desc, streams, &carver);
  return carver.used();
}

template <class T>
int64_t StreamsOf(const LayerDesc& desc) {
  return MayRunAtOnce(desc) && BytesOf<T>(desc, 2) <= kMostBytesAtOnce ? 2 : 1;
}

// Directions that are on streams of their own, or one.
template <class T>
void RunAtOnce(const std::vector<ForwardDirection<T>>& directions) {
  const Walk& walk = directions[0].walk();
  for (int64_t first = 0; first < walk.steps; first = walk.End(first)) {
    const float* sums[kMaxDirections];
    for (size_t d = 0; d < directions.size(); ++d) sums[d] = directions[d].Project(first);
    for (int64_t index = first; index < walk.End(first); ++index) {
      for (size_t d = 0; d < directions.size(); ++d) directions[d].RunStep(index, first, sums[d]);
    }
  }
}

}  // namespace

template <class T>
size_t StepwiseForwardBytes(const LayerDesc& desc) {
  return BytesOf<T>(desc, StreamsOf<T>(desc));
}

template <class T>
void StepwiseForward(const LayerDesc& desc, const ForwardArgs& args, bool tf32) {
  Carver carver(args.workspace);
  const int64_t streams = StreamsOf<T>(desc);
  const ForwardBuffers buffers = BuffersOf<T>(desc, streams, &carver);
  const auto stream = static_cast<cudaStream_t>(args.stream);
  Blas blas(desc.device_index, stream, buffers.blas[0], tf32);
  if (streams == 1) {
    for (int64_t d = 0; d < desc.directions; ++d) {
      RunAtOnce<T>({ForwardDirection<T>(desc, args, buffers, &blas, stream, d)});
    }
    return;
  }
  SideStream side(desc.device_index, stream);
  Blas side_blas(desc.device_index, side.get(), buffers.blas[1], tf32, 1);
  RunAtOnce<T>({ForwardDirection<T>(desc, args, buffers, &blas, stream, 0),
                ForwardDirection<T>(desc, args, buffers, &side_blas, side.get(), 1)});
  side.Join();
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
