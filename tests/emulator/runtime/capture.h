// Streams that are captured into CUDA graphs: their work is kept, and done when the graph runs.
//
// Then streams are as free of each other as on a GPU, and one that did not wait for what it reads
// gets something else. In fifo order the work is done as it was captured; in lifo order the stream
// that came last is always as far ahead as it may be; in random order it changes.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <memory>

namespace emulator {

using Work = std::function<cudaError_t()>;
struct Capture;

// A place in a stream's work, which others can wait for.
struct Point {
  cudaStream_t stream = nullptr;
  std::shared_ptr<Capture> capture;  // null where the stream is not captured
  int given = 0;                     // the work that the capture had got of the stream
  size_t nodes = 0;                  // and the work and the waits
};

// The legacy default stream is null by whatever name.
cudaStream_t Named(const void* stream);

bool IsCaptured(cudaStream_t stream);

// Does the work at once, or keeps it where the stream is being captured.
cudaError_t Enqueue(cudaStream_t stream, Work work);

Point PointOf(cudaStream_t stream);
// Has a stream wait for a point. A stream that waits for a captured one is captured with it.
cudaError_t Follow(cudaStream_t stream, const Point& point);

}  // namespace emulator
