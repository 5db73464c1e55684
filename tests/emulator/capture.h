// Streams that are captured into CUDA graphs: their work is kept, and done when the graph runs.
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
  int given = 0;                     // what the capture had got of the stream
};

// The legacy default stream is null by whatever name.
cudaStream_t Named(const void* stream);

bool IsCaptured(cudaStream_t stream);

// Does the work at once, or keeps it where the stream is being captured.
cudaError_t Enqueue(cudaStream_t stream, Work work);

Point PointOf(cudaStream_t stream);
// Has a stream wait for a point. A stream that waits for a captured one is captured with it.
cudaError_t Follow(cudaStream_t stream, const Point& point);

// Of the calls that CUDA forbids a thread while there is a capture that they might disturb, which
// is lost then.
cudaError_t StatusOfUnsafeCall();

}  // namespace emulator
