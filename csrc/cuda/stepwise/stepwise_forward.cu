#include "../runtime/side_stream.h"
#include "forward_work.h"

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

}  // namespace

template <class T>
size_t StepwiseForward<T>::Bytes(const LayerDesc& desc) {
  return BytesOf<T>(desc, StreamsOf<T>(desc));
}

template <class T>
void StepwiseForward<T>::Run(const LayerDesc& desc, const ForwardArrays& args, bool tf32) {
  Carver carver(args.workspace);
  const int64_t streams = StreamsOf<T>(desc);
  const ForwardBuffers buffers = BuffersOf<T>(desc, streams, &carver);
  const auto stream = static_cast<cudaStream_t>(args.stream);
  Blas blas(desc.device_index, stream, buffers.blas[0], tf32);
  const int64_t rows = ForwardChunkRows(desc);
  LoadKey(desc, args.seed, buffers.key, stream);
  ForwardWork<T> work(&blas, stream, buffers.sums[0], buffers.key);
  if (streams == 1) {
    for (int64_t d = 0; d < desc.directions; ++d) {
      RunSteps<T, ForwardWork<T>>({{desc, args, rows, buffers.arrays[d], &work, d}});
    }
    return;
  }
  SideStream side(desc.device_index, stream);
  Blas side_blas(desc.device_index, side.get(), buffers.blas[1], tf32, 1);
  ForwardWork<T> side_work(&side_blas, side.get(), buffers.sums[1], buffers.key);
  RunSteps<T, ForwardWork<T>>({{desc, args, rows, buffers.arrays[0], &work, 0},
                               {desc, args, rows, buffers.arrays[1], &side_work, 1}});
  side.Join();
}

#define FASTRNN_INSTANTIATE(value, T) template struct StepwiseForward<T>;
FASTRNN_CUDA_TYPES(FASTRNN_INSTANTIATE)

}  // namespace cuda
}  // namespace fastrnn
