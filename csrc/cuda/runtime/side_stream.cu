#include <map>
#include <utility>

#include "../../error.h"
#include "side_stream.h"

namespace fastrnn {
namespace cuda {
namespace {

// An event may be recorded again while a stream waits for it: the wait is for what had been
// recorded when it was enqueued.
struct Side {
  cudaStream_t stream = nullptr;
  cudaEvent_t event = nullptr;
};

class Sides {
 public:
  // These fail only if the process ends and CUDA has been shut down.
  ~Sides() {
    for (const auto& [device, side] : sides_) {
      cudaEventDestroy(side.event);
      cudaStreamDestroy(side.stream);
    }
  }
  Side Get(int device) {
    const auto found = sides_.find(device);
    return found != sides_.end() ? found->second : sides_[device] = Make();
  }

 private:
  static Side Make() {
    Side side;
    // It must not wait for the legacy default stream, which may be the caller's.
    FASTRNN_CUDA_TRY(cudaStreamCreateWithFlags(&side.stream, cudaStreamNonBlocking));
    const cudaError_t status = cudaEventCreateWithFlags(&side.event, cudaEventDisableTiming);
    if (status != cudaSuccess) cudaStreamDestroy(side.stream);
    FASTRNN_CUDA_TRY(status);
    return side;
  }

  std::map<int, Side> sides_;
};

Side ThreadsSide(int device) {
  static thread_local Sides sides;
  return sides.Get(device);
}

}  // namespace

SideStream::SideStream(int device, cudaStream_t stream) : stream_(stream) {
  const Side side = ThreadsSide(device);
  side_ = side.stream;
  event_ = side.event;
  FASTRNN_CUDA_TRY(cudaEventRecord(event_, stream_));
  FASTRNN_CUDA_TRY(cudaStreamWaitEvent(side_, event_, 0));
}

SideStream::~SideStream() {
  if (joined_) return;
  if (cudaEventRecord(event_, side_) == cudaSuccess) cudaStreamWaitEvent(stream_, event_, 0);
}

void SideStream::Follow() {
  FASTRNN_CUDA_TRY(cudaEventRecord(event_, stream_));
  FASTRNN_CUDA_TRY(cudaStreamWaitEvent(side_, event_, 0));
}

void SideStream::Join() {
  FASTRNN_CUDA_TRY(cudaEventRecord(event_, side_));
  FASTRNN_CUDA_TRY(cudaStreamWaitEvent(stream_, event_, 0));
  joined_ = true;
}

}  // namespace cuda
}  // namespace fastrnn
