// Stepwise work as a CUDA graph: a layer that is called again with the same arrays costs the host
// one launch, in place of two and more a step.
//
// A call is known by its key: all that what it enqueues depends on, that is the layer's description
// and every address, and nothing that an array holds, since the host looks into none. So a graph
// with the same key does what the call would do, with what the arrays hold when it runs. cuBLAS
// works in our workspace, whose address is in the key too; that a stream's pool gives the same
// workspace call after call is what makes keys come again. The stream is not in the key: a graph
// has none until it is launched, and a second launch of it waits for the first, as two calls that
// write to the same arrays must.
//
// A key that is seen first runs plainly, which loads the kernels, cuBLAS's too: that may not happen
// in a capture. The second time it is captured, from then on replayed. Where that fails it runs
// plainly, and is tried again later.
//
// It is captured on a stream of our own, which waits for nobody and for which nobody waits. The
// caller's may be the legacy default stream, which cannot be captured, or one that waits for that:
// whoever used that in the meantime, in any thread, would fail. One thing of that kind remains, and
// CUDA has no way around it: while a thread captures, which takes it about as long as a plain call,
// what waits for the whole device fails in the others, as cudaDeviceSynchronize does, and ends the
// capture. Of fastrnn's own threads none does that then (capture_mutex.h). FASTRNN_GRAPHS=0 is for
// programs that mind.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "../rnn.h"

namespace fastrnn {
namespace cuda {

using ReplayKey = std::vector<uint64_t>;

ReplayKey KeyOf(const LayerDesc& desc, const ForwardArgs& args, bool tf32);
ReplayKey KeyOf(const LayerDesc& desc, const BackwardArgs& args, bool tf32);

// Has this thread forget what it has been called with, and give its graphs back. In a build without
// CUDA there are none.
void ForgetReplays();

// What has become of this thread's calls that came again.
struct ReplayCounts {
  int64_t captured = 0, replayed = 0;  // the first launch of a graph counts too
  int64_t failed = 0;                  // captures and launches
  std::string failure;                 // the latest
};
ReplayCounts CountsOfReplays();

// Whether a call on the stream may be one of a graph: where heuristics.h's MayReplay, and the
// caller does not capture the stream.
bool IsReplayed(const LayerDesc& desc, void* stream);

template <class Args>
Args OnStream(Args args, void* stream) {
  args.stream = stream;
  return args;
}

// Has the stream do what enqueue(stream) gives it. Of the current device.
void Replay(const LayerDesc& desc, ReplayKey key, void* stream,
            const std::function<void(void* stream)>& enqueue);

// Calls enqueue(args), or has a graph do the same.
template <class Args, class Enqueue>
void Replayed(const LayerDesc& desc, const Args& args, bool tf32, const Enqueue& enqueue) {
  if (!IsReplayed(desc, args.stream)) return enqueue(args);
  Replay(desc, KeyOf(desc, args, tf32), args.stream,
         [&](void* stream) { enqueue(OnStream(args, stream)); });
}

}  // namespace cuda
}  // namespace fastrnn
