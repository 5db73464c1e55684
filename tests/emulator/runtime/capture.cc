#include "capture.h"

#include <algorithm>
#include <functional>
#include <map>
#include <mutex>
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

void Begin(cudaStream_t stream) {
  auto capture = std::make_shared<Capture>();
  capture->origin = Named(stream);
  capture->LaneOf(stream);
  const std::lock_guard<std::mutex> lock(mutex);
  captures.push_back(std::move(capture));
}

// Ends a capture; tells whether it is valid, and whether its origin has waited for all.
bool End(cudaStream_t stream, Graph* graph) {
  const std::lock_guard<std::mutex> lock(mutex);
  const auto capture = CaptureOf(stream);
  capture->ended = true;
  captures.erase(std::find(captures.begin(), captures.end(), capture));
  *graph = std::move(capture->graph);
  return capture->valid &&
         std::all_of(capture->lanes.begin(), capture->lanes.end(), [&](const auto& lane) {
           return lane.first == capture->origin || lane.second.joined == lane.second.given;
         });
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

}  // namespace emulator

void emulator_begin_capture(void* stream) { emulator::Begin(static_cast<cudaStream_t>(stream)); }
int emulator_end_capture(void* stream) {
  emulator::Graph graph;
  if (!emulator::End(static_cast<cudaStream_t>(stream), &graph)) return false;
  return emulator::GraphRun(graph).Run() == cudaSuccess;
}
int emulator_record(void* stream, void (*run)(void*), void (*destroy)(void*), void* context) {
  const std::shared_ptr<void> owned(context, destroy);
  const auto work = [run, owned] {
    run(owned.get());
    return cudaSuccess;
  };
  return emulator::Enqueue(static_cast<cudaStream_t>(stream), work);
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  *status =
      emulator::IsCaptured(stream) ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
