#include <list>
#include <map>
#include <mutex>
#include <shared_mutex>
#include <type_traits>
#include <utility>

#include "../error.h"
#include "capture_mutex.h"
#include "heuristics.h"
#include "memory.h"
#include "replay.h"
#include "runtime.h"

namespace fastrnn {
namespace cuda {
namespace {

// ---- keys ---------------------------------------------------------------------------------------

class Words {
 public:
  template <class... Values>
  void Add(Values... values) {
    (key_.push_back(Word(values)), ...);
  }
  // No field is forgotten, here and below: the bindings have to be as many as there are. The
  // algorithm chose to be here, and the device is CUDA.
  void AddLayer(const LayerDesc& layer, bool allows_tf32) {
    const auto& [mode, dtype, device, device_index, steps, batch, input, hidden, directions,
                 reserve, tf32, algorithm, graphs] = layer;
    Add(mode, dtype, device, device_index, steps, batch, input, hidden, directions, reserve, tf32,
        allows_tf32, algorithm.kind, graphs);
  }
  template <class OfDirection>
  void AddParameters(const OfDirection* parameters) {
    for (int d = 0; d < kMaxDirections; ++d) {
      const auto& [i2h_weight, h2h_weight, i2h_bias, h2h_bias] = parameters[d];
      Add(i2h_weight, h2h_weight, i2h_bias, h2h_bias);
    }
  }
  ReplayKey Take() { return std::move(key_); }

 private:
  template <class T>
  static uint64_t Word(const T* pointer) {
    return reinterpret_cast<uintptr_t>(pointer);
  }
  template <class T, std::enable_if_t<!std::is_pointer<T>::value, bool> = true>
  static uint64_t Word(T value) {
    return static_cast<uint64_t>(value);
  }

  ReplayKey key_;
};

// ---- graphs -------------------------------------------------------------------------------------

// While one lives, this thread may call what CUDA forbids while somebody else captures, in case it
// counts streams and graphs among that: to make or destroy them disturbs no capture.
class Undisturbing {
 public:
  Undisturbing() { Exchange(); }
  ~Undisturbing() { Exchange(); }
  Undisturbing(const Undisturbing&) = delete;
  Undisturbing& operator=(const Undisturbing&) = delete;

 private:
  void Exchange() {
    if (cudaThreadExchangeStreamCaptureMode(&mode_) != cudaSuccess) cudaGetLastError();
  }
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

// A stream of the current device that is being captured, until the end and also where an error is
// the end.
class Capture {
 public:
  explicit Capture(cudaStream_t stream) : stream_(stream) {
    FASTRNN_CUDA_TRY(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
  }
  ~Capture() {
    if (capturing_) cudaStreamEndCapture(stream_, &graph_);
    const Undisturbing undisturbing;
    if (graph_ != nullptr) cudaGraphDestroy(graph_);
  }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  cudaGraphExec_t End() {
    capturing_ = false;
    FASTRNN_CUDA_TRY(cudaStreamEndCapture(stream_, &graph_));
    cudaGraphExec_t executable = nullptr;
    const Undisturbing undisturbing;
#if CUDART_VERSION >= 11040
    FASTRNN_CUDA_TRY(cudaGraphInstantiateWithFlags(&executable, graph_, 0));
#else
    FASTRNN_CUDA_TRY(cudaGraphInstantiate(&executable, graph_, nullptr, nullptr, 0));
#endif
    return executable;
  }

 private:
  cudaStream_t stream_;
  cudaGraph_t graph_ = nullptr;
  bool capturing_ = true;
};

// One for each device, kept as cuBLAS's handles are left with it.
class CaptureStreams {
 public:
  // Errors are those of a process that ends, as in side_stream.cu.
  ~CaptureStreams() {
    for (const auto& [device, stream] : streams_) cudaStreamDestroy(stream);
  }
  cudaStream_t Get(int device) {
    const auto found = streams_.find(device);
    if (found != streams_.end()) return found->second;
    const Undisturbing undisturbing;
    cudaStream_t stream = nullptr;
    FASTRNN_CUDA_TRY(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    return streams_[device] = stream;
  }

 private:
  std::map<int, cudaStream_t> streams_;
};

using Enqueue = std::function<void(void* stream)>;

// ---- the graphs of a thread ---------------------------------------------------------------------

struct Call {
  ReplayKey key;
  int64_t again = 0;   // how often it has come again without a graph
  int64_t latest = 0;  // which of the thread's calls was the latest
  cudaGraphExec_t executable = nullptr;
  int64_t launches = 0;
};

// Neither the host nor the device is to fill up with graphs. Keys beyond kMostCalls are forgotten,
// those used longest ago first, and with them their graphs: calls that come round in more than so
// many are captured never, not again and again. What CUDA keeps of a launch is not documented, nor
// is where; kMostLaunches is two layers' passes of 1024 steps, forward and backward.
constexpr size_t kMostCalls = 16;
constexpr int64_t kMostLaunches = 4 * kMostReplayedLaunches;
// A graph that so many calls had no use for makes room for others.
constexpr int64_t kUnused = 2 * kMostCalls;

class Calls {
 public:
  ~Calls() { Clear(); }

  void Clear() {
    for (Call& call : calls_) Drop(&call);
    calls_.clear();
  }

  // Null where the key is not known. What is found is the latest.
  Call* Find(const ReplayKey& key) {
    ++count_;
    for (auto call = calls_.begin(); call != calls_.end(); ++call) {
      if (call->key != key) continue;
      calls_.splice(calls_.begin(), calls_, call);
      call->latest = count_;
      return &*call;
    }
    return nullptr;
  }

  void Add(ReplayKey key) {
    calls_.emplace_front();
    calls_.front().key = std::move(key);
    calls_.front().latest = count_;
    if (calls_.size() <= kMostCalls) return;
    Drop(&calls_.back());
    calls_.pop_back();
  }

  // Where it comes again for the first time, the second, the fourth, the eighth and so on: what
  // has failed may have done so since somebody waited for the whole device just then. What is wrong
  // with the work itself is left to a plain run to report.
  void TryToCapture(Call* call, int device, int64_t launches, const Enqueue& enqueue) {
    if (call->executable != nullptr) return;
    ++call->again;
    if ((call->again & (call->again - 1)) != 0 || !MakeRoom(launches)) return;
    const std::shared_lock<std::shared_mutex> lock(CaptureMutex());
    try {
      const cudaStream_t stream = streams_.Get(device);
      Capture capture(stream);
      enqueue(stream);
      call->executable = capture.End();
      call->launches = launches;
      launches_ += launches;
      ++counts.captured;
    } catch (const Error& error) {
      cudaGetLastError();
      ++counts.failed;
      counts.failure = error.what();
    }
  }

  // The graph may still run: it is then freed when it has ended (cuGraphExecDestroy's description,
  // in CUDA 11.8 and in 13.0).
  void Drop(Call* call) {
    if (call->executable == nullptr) return;
    const Undisturbing undisturbing;
    if (cudaGraphExecDestroy(call->executable) != cudaSuccess) cudaGetLastError();
    call->executable = nullptr;
    launches_ -= call->launches;
  }

  ReplayCounts counts;

 private:
  bool MakeRoom(int64_t launches) {
    for (auto call = calls_.rbegin(); call != calls_.rend(); ++call) {
      if (launches_ + launches <= kMostLaunches) break;
      if (count_ - call->latest > kUnused) Drop(&*call);
    }
    return launches_ + launches <= kMostLaunches;
  }

  CaptureStreams streams_;
  std::list<Call> calls_;  // the latest first
  int64_t count_ = 0;      // of calls
  int64_t launches_ = 0;   // of all executables
};

Calls& ThreadsCalls() {
  static thread_local Calls calls;
  return calls;
}

}  // namespace

ReplayKey KeyOf(const LayerDesc& desc, const ForwardArgs& args, bool tf32) {
  const auto& [x, lengths, h0, c0, weights, y, hn, cn, reserve, workspace, stream] = args;
  Words words;
  words.Add(Pass::kForward, x, lengths, h0, c0, y, hn, cn, reserve, workspace);
  words.AddParameters(weights);
  words.AddLayer(desc, tf32);
  return words.Take();
}

ReplayKey KeyOf(const LayerDesc& desc, const BackwardArgs& args, bool tf32) {
  const auto& [x, lengths, h0, c0, weights, y, reserve, dy, dhn, dcn, dx, dh0, dc0, gradients,
               workspace, stream] = args;
  Words words;
  words.Add(Pass::kBackward, x, lengths, h0, c0, y, reserve, dy, dhn, dcn, dx, dh0, dc0, workspace);
  words.AddParameters(weights);
  words.AddParameters(gradients);
  words.AddLayer(desc, tf32);
  return words.Take();
}

void ForgetReplays() { ThreadsCalls().Clear(); }

ReplayCounts CountsOfReplays() { return ThreadsCalls().counts; }

bool IsReplayed(const LayerDesc& desc, void* stream) {
  return MayReplay(desc) && !IsCapturing(desc.device_index, stream);
}

void Replay(const LayerDesc& desc, ReplayKey key, void* stream, const Enqueue& enqueue) {
  Calls& calls = ThreadsCalls();
  Call* call = calls.Find(key);
  if (call == nullptr) {
    enqueue(stream);
    return calls.Add(std::move(key));  // not before: what failed has loaded nothing
  }
  calls.TryToCapture(call, desc.device_index, ReplayedLaunches(desc), enqueue);
  if (call->executable != nullptr) {
    const cudaError_t status = cudaGraphLaunch(call->executable, static_cast<cudaStream_t>(stream));
    if (status == cudaSuccess) {
      ++calls.counts.replayed;
      return;
    }
    cudaGetLastError();
    ++calls.counts.failed;
    calls.counts.failure = cudaGetErrorString(status);
    calls.Drop(call);
  }
  // Also after a launch that failed half-way: what a pass reads it writes never, or anew before.
  enqueue(stream);
}

}  // namespace cuda
}  // namespace fastrnn
