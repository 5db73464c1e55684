#include "capture.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "control.h"
#include "emulator.h"
#include "schedule.h"

namespace emulator {

namespace {

// Work of a stream, or a stream's wait for so many nodes of another one.
struct Node {
  size_t lane;
  Work work;  // none where it is a wait
  size_t awaited_lane = 0, awaited_nodes = 0;
};
using Graph = std::vector<Node>;

}  // namespace

struct Capture {
  // A stream: what work it has been given, and how much of that the origin has waited for.
  struct Lane {
    size_t number;
    size_t nodes = 0;
    int given = 0, joined = 0;
  };

  cudaStream_t origin;
  cudaStreamCaptureMode mode;
  std::thread::id thread = std::this_thread::get_id();
  bool valid = true, ended = false;
  Graph graph;
  std::map<cudaStream_t, Lane> lanes;

  // The stream becomes a part of the capture.
  Lane& LaneOf(cudaStream_t stream) {
    return lanes.emplace(Named(stream), Lane{lanes.size()}).first->second;
  }
  void Add(Lane* lane, Work work, size_t awaited_lane = 0, size_t awaited_nodes = 0) {
    graph.push_back({lane->number, std::move(work), awaited_lane, awaited_nodes});
    ++lane->nodes;
  }
};

namespace {

std::mutex mutex;
std::vector<std::shared_ptr<Capture>> captures;  // those that go on
thread_local cudaStreamCaptureMode mode_of_thread = cudaStreamCaptureModeGlobal;
std::atomic<int> executables{0};
thread_local int graph_launches = 0;

// Null where the stream is not being captured. The mutex is locked.
std::shared_ptr<Capture> CaptureOf(cudaStream_t stream) {
  for (const auto& capture : captures) {
    if (capture->lanes.count(Named(stream)) > 0) return capture;
  }
  return nullptr;
}

cudaError_t Invalidate(const std::shared_ptr<Capture>& capture, cudaError_t error) {
  if (capture != nullptr) capture->valid = false;
  return error;
}

// A graph that runs: each stream's nodes in their order, and the streams as the schedule has it.
class GraphRun {
 public:
  explicit GraphRun(const Graph& graph)
      : schedule_(ScheduleFromEnvironment()), random_(schedule_.seed) {
    for (const Node& node : graph) {
      if (node.lane >= lanes_.size()) lanes_.resize(node.lane + 1);
      lanes_[node.lane].nodes.push_back(&node);
      ++left_;
    }
  }

  cudaError_t Run() {
    for (; left_ > 0; --left_) {
      const Node& node = *Next();
      const cudaError_t status = node.work ? node.work() : cudaSuccess;
      if (status != cudaSuccess) return status;
    }
    return cudaSuccess;
  }

 private:
  struct Lane {
    std::vector<const Node*> nodes;
    size_t done = 0;
  };

  bool IsReady(const Lane& lane) const {
    if (lane.done == lane.nodes.size()) return false;
    const Node& node = *lane.nodes[lane.done];
    return node.awaited_nodes == 0 || lanes_[node.awaited_lane].done >= node.awaited_nodes;
  }

  // There always is one, as the order of the capture shows.
  const Node* Next() {
    std::vector<Lane*> ready;
    for (Lane& lane : lanes_) {
      if (IsReady(lane)) ready.push_back(&lane);
    }
    Lane* lane = Pick(ready);
    return lane->nodes[lane->done++];
  }

  Lane* Pick(const std::vector<Lane*>& ready) {
    if (schedule_.order == Order::kLifo) return ready.back();
    if (schedule_.order == Order::kFifo) {
      // A graph's nodes lie as they were captured.
      return *std::min_element(ready.begin(), ready.end(), [](const Lane* a, const Lane* b) {
        return std::less<>()(a->nodes[a->done], b->nodes[b->done]);
      });
    }
    // A stream stays ahead for a while: with every node's lot cast anew, none would get far.
    const auto stays = std::find(ready.begin(), ready.end(), favorite_);
    if (stays == ready.end() || random_.Below(8) == 0) {
      favorite_ = ready[random_.Below(ready.size())];
    }
    return favorite_;
  }

  Schedule schedule_;
  RandomBits random_;
  std::vector<Lane> lanes_;
  size_t left_ = 0;
  Lane* favorite_ = nullptr;
};

// Ends a capture, whatever has become of it.
cudaError_t End(cudaStream_t stream, Graph* graph) {
  const std::lock_guard<std::mutex> lock(mutex);
  const auto capture = CaptureOf(stream);
  if (capture == nullptr) return cudaErrorIllegalState;
  if (capture->origin != Named(stream)) {
    return Invalidate(capture, cudaErrorStreamCaptureUnmatched);
  }
  if (capture->thread != std::this_thread::get_id() &&
      capture->mode != cudaStreamCaptureModeRelaxed) {
    return Invalidate(capture, cudaErrorStreamCaptureWrongThread);
  }
  capture->ended = true;
  captures.erase(std::find(captures.begin(), captures.end(), capture));
  *graph = std::move(capture->graph);
  if (!capture->valid) return cudaErrorStreamCaptureInvalidated;
  for (const auto& [of, lane] : capture->lanes) {
    if (of != capture->origin && lane.joined < lane.given) return cudaErrorStreamCaptureUnjoined;
  }
  return cudaSuccess;
}

Graph* GraphOf(cudaGraph_t graph) { return reinterpret_cast<Graph*>(graph); }
std::shared_ptr<Graph>* GraphOf(cudaGraphExec_t executable) {
  return reinterpret_cast<std::shared_ptr<Graph>*>(executable);
}

}  // namespace

cudaStream_t Named(const void* stream) {
  return stream == cudaStreamLegacy ? nullptr
                                    : static_cast<cudaStream_t>(const_cast<void*>(stream));
}

bool IsCaptured(cudaStream_t stream) {
  const std::lock_guard<std::mutex> lock(mutex);
  return CaptureOf(stream) != nullptr;
}

cudaError_t Enqueue(cudaStream_t stream, Work work) {
  {
    const std::lock_guard<std::mutex> lock(mutex);
    if (const auto capture = CaptureOf(stream)) {
      if (!capture->valid) return cudaErrorStreamCaptureInvalidated;
      Capture::Lane& lane = capture->LaneOf(stream);
      capture->Add(&lane, std::move(work));
      ++lane.given;
      return cudaSuccess;
    }
  }
  return work();
}

Point PointOf(cudaStream_t stream) {
  const std::lock_guard<std::mutex> lock(mutex);
  const auto capture = CaptureOf(stream);
  if (capture == nullptr) return {Named(stream), nullptr};
  const Capture::Lane& lane = capture->LaneOf(stream);
  return {Named(stream), capture, lane.given, lane.nodes};
}

cudaError_t Follow(cudaStream_t stream, const Point& point) {
  const std::lock_guard<std::mutex> lock(mutex);
  const auto capture = CaptureOf(stream);
  if (point.capture == nullptr && capture == nullptr) return cudaSuccess;
  if (point.capture == nullptr || point.capture->ended) {
    return Invalidate(capture, cudaErrorStreamCaptureIsolation);
  }
  if (capture != nullptr && capture != point.capture) {
    Invalidate(capture, cudaErrorStreamCaptureMerge);
    return Invalidate(point.capture, cudaErrorStreamCaptureMerge);
  }
  Capture::Lane& lane = point.capture->LaneOf(stream);
  Capture::Lane& awaited = point.capture->LaneOf(point.stream);
  point.capture->Add(&lane, nullptr, awaited.number, point.nodes);
  if (Named(stream) == point.capture->origin) {
    awaited.joined = std::max(awaited.joined, point.given);
  }
  return cudaSuccess;
}

cudaError_t StatusOfUnsafeCall() {
  const std::lock_guard<std::mutex> lock(mutex);
  cudaError_t status = cudaSuccess;
  if (mode_of_thread == cudaStreamCaptureModeRelaxed) return status;
  for (const auto& capture : captures) {
    const bool own = capture->thread == std::this_thread::get_id();
    const bool minds = own ? capture->mode != cudaStreamCaptureModeRelaxed
                           : capture->mode == cudaStreamCaptureModeGlobal &&
                                 mode_of_thread == cudaStreamCaptureModeGlobal;
    if (minds) status = Invalidate(capture, cudaErrorStreamCaptureUnsupported);
  }
  return status;
}

}  // namespace emulator

using emulator::NoteError;
using emulator::StatusOfCall;

void emulator_begin_capture(void* stream) {
  cudaStreamBeginCapture(static_cast<cudaStream_t>(stream), cudaStreamCaptureModeGlobal);
}
int emulator_end_capture(void* stream) {
  emulator::Graph graph;
  if (emulator::End(static_cast<cudaStream_t>(stream), &graph) != cudaSuccess) return false;
  return emulator::GraphRun(graph).Run() == cudaSuccess;
}
int emulator_captures_relaxed() { return emulator::mode_of_thread == cudaStreamCaptureModeRelaxed; }
int emulator_executables() { return emulator::executables; }
int emulator_graph_launches() { return emulator::graph_launches; }
int emulator_record(void* stream, void (*run)(void*), void (*destroy)(void*), void* context) {
  const std::shared_ptr<void> owned(context, destroy);
  const auto work = [run, owned] {
    run(owned.get());
    return cudaSuccess;
  };
  return emulator::Enqueue(static_cast<cudaStream_t>(stream), work);
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  const cudaError_t asked_for = StatusOfCall(__func__);
  if (asked_for != cudaSuccess) return NoteError(asked_for);
  const cudaStream_t named = emulator::Named(stream);
  if (named == nullptr) return NoteError(cudaErrorStreamCaptureUnsupported);
  if (emulator::IsCaptured(stream)) return NoteError(cudaErrorIllegalState);
  auto capture = std::make_shared<emulator::Capture>();
  capture->origin = named;
  capture->mode = mode;
  capture->LaneOf(named);
  const std::lock_guard<std::mutex> lock(emulator::mutex);
  emulator::captures.push_back(std::move(capture));
  return cudaSuccess;
}

// A failure that is asked for comes when the capture has ended all the same.
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  emulator::Graph captured;
  *graph = nullptr;
  const cudaError_t status = emulator::End(stream, &captured);
  const cudaError_t asked_for = StatusOfCall(__func__);
  if (status != cudaSuccess || asked_for != cudaSuccess) {
    return NoteError(status != cudaSuccess ? status : asked_for);
  }
  *graph = reinterpret_cast<cudaGraph_t>(new emulator::Graph(std::move(captured)));
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  *status =
      emulator::IsCaptured(stream) ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(*mode, emulator::mode_of_thread);
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* executable, cudaGraph_t graph,
                                          unsigned long long) {
  cudaError_t status = StatusOfCall(__func__);
  if (status == cudaSuccess) status = emulator::StatusOfUnsafeCall();
  if (status != cudaSuccess) return NoteError(status);
  auto kept = std::make_shared<emulator::Graph>(*emulator::GraphOf(graph));
  *executable =
      reinterpret_cast<cudaGraphExec_t>(new std::shared_ptr<emulator::Graph>(std::move(kept)));
  ++emulator::executables;
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  const cudaError_t asked_for = StatusOfCall(__func__);
  if (asked_for != cudaSuccess) return NoteError(asked_for);
  ++emulator::graph_launches;
  const auto graph = *emulator::GraphOf(executable);
  return NoteError(emulator::Enqueue(stream, [graph] { return emulator::GraphRun(*graph).Run(); }));
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete emulator::GraphOf(graph);
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  const cudaError_t status = emulator::StatusOfUnsafeCall();
  if (status != cudaSuccess) return NoteError(status);
  delete emulator::GraphOf(executable);
  --emulator::executables;
  return cudaSuccess;
}
