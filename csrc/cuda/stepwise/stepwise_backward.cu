#include <vector>

#include "../runtime/side_stream.h"
#include "backward_work.h"

namespace fastrnn {
namespace cuda {

namespace {

// One for each stream.
template <class T>
std::vector<BackwardBuffers<T>> BuffersOf(const LayerDesc& desc, int64_t streams, Carver* carver) {
  std::vector<BackwardBuffers<T>> buffers;
  for (int64_t i = 0; i < streams; ++i) buffers.emplace_back(desc, carver);
  return buffers;
}

template <class T>
size_t BytesOf(const LayerDesc& desc, int64_t streams) {
  Carver carver(nullptr);
  BuffersOf<T>(desc, streams, &carver);
  return carver.used();
}

template <class T>
int64_t StreamsOf(const LayerDesc& desc) {
  const bool at_once = BackwardIsOneChunk(desc) && MayRunAtOnce(desc);
  return at_once && BytesOf<T>(desc, 2) <= kMostBytesAtOnce ? 2 : 1;
}

template <class T>
void RunAtOnce(CudaBackwardDirection<T> direction, CudaBackwardDirection<T> on_side,
               SideStream* side) {
  direction.Begin();
  on_side.Begin();
  for (int64_t index = direction.walk().steps - 1; index >= 0; --index) {
    direction.RunStep(index, 0);
    on_side.RunStep(index, 0);
  }
  direction.SumChunk(0);
  direction.End();
  side->Follow();  // The second direction adds to dx.
  on_side.SumChunk(0);
  on_side.End();
  side->Join();
}

}  // namespace

template <class T>
size_t StepwiseBackward<T>::Bytes(const LayerDesc& desc) {
  return BytesOf<T>(desc, StreamsOf<T>(desc));
}

template <class T>
void StepwiseBackward<T>::Run(const LayerDesc& desc, const BackwardArrays& args, bool tf32) {
  Carver carver(args.workspace);
  const int64_t streams = StreamsOf<T>(desc);
  const std::vector<BackwardBuffers<T>> buffers = BuffersOf<T>(desc, streams, &carver);
  const auto stream = static_cast<cudaStream_t>(args.stream);
  Blas blas(desc.device_index, stream, buffers[0].blas, tf32);
  const int64_t rows = BackwardChunkRows(desc);
  LoadKey(desc, args.seed, buffers[0].key, stream);
  BackwardWork<T> work(&blas, stream, buffers[0].partial, buffers[0].key);
  if (streams == 1) {
    for (int64_t d = 0; d < desc.directions; ++d) {
      RunSteps(CudaBackwardDirection<T>(desc, args, rows, buffers[0].arrays, &work, d));
    }
    return;
  }
  SideStream side(desc.device_index, stream);
  Blas side_blas(desc.device_index, side.get(), buffers[1].blas, tf32, 1);
  BackwardWork<T> side_work(&side_blas, side.get(), buffers[1].partial, buffers[0].key);
  RunAtOnce(CudaBackwardDirection<T>(desc, args, rows, buffers[0].arrays, &work, 0),
            CudaBackwardDirection<T>(desc, args, rows, buffers[1].arrays, &side_work, 1), &side);
}

#define FASTRNN_INSTANTIATE(value, T) template struct StepwiseBackward<T>;
FASTRNN_CUDA_TYPES(FASTRNN_INSTANTIATE)

}  // namespace cuda
}  // namespace fastrnn
