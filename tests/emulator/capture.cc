#include "capture.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "control.h"
#include "emulator.h"

namespace emulator {

struct Capture {
  // What a stream has been given, and how much of that the origin has waited for.
  struct Lane {
    int given = 0, joined = 0;
  };

  cudaStream_t origin;
  cudaStreamCaptureMode mode;
  std::thread::id thread = std::this_thread::get_id();
  bool valid = true, ended = false;
  std::vector<Work> works;
  std::map<cudaStream_t, Lane> lanes;
};

namespace {

using Works = std::vector<Work>;

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

cudaError_t Run(const Works& works) {
  for (const Work& work : works) {
    const cudaError_t status = work();
    if (status != cudaSuccess) return status;
  }
  return cudaSuccess;
}

// Ends a capture, whatever has become of it.
cudaError_t End(cudaStream_t stream, Works* works) {
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
  *works = std::move(capture->works);
  if (!capture->valid) return cudaErrorStreamCaptureInvalidated;
  for (const auto& [of, lane] : capture->lanes) {
    if (of != capture->origin && lane.joined < lane.given) return cudaErrorStreamCaptureUnjoined;
  }
  return cudaSuccess;
}

Works* WorksOf(cudaGraph_t graph) { return reinterpret_cast<Works*>(graph); }
std::shared_ptr<Works>* WorksOf(cudaGraphExec_t executable) {
  return reinterpret_cast<std::shared_ptr<Works>*>(executable);
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
      capture->works.push_back(std::move(work));
      ++capture->lanes[Named(stream)].given;
      return cudaSuccess;
    }
  }
  return work();
}

Point PointOf(cudaStream_t stream) {
  const std::lock_guard<std::mutex> lock(mutex);
  const auto capture = CaptureOf(stream);
  return {Named(stream), capture, capture == nullptr ? 0 : capture->lanes[Named(stream)].given};
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
  auto& lanes = point.capture->lanes;
  lanes[Named(stream)];  // becomes a part of the capture
  if (Named(stream) == point.capture->origin) {
    int& joined = lanes[point.stream].joined;
    joined = std::max(joined, point.given);
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
  emulator::Works works;
  if (emulator::End(static_cast<cudaStream_t>(stream), &works) != cudaSuccess) return false;
  return emulator::Run(works) == cudaSuccess;
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
  capture->lanes[named];
  const std::lock_guard<std::mutex> lock(emulator::mutex);
  emulator::captures.push_back(std::move(capture));
  return cudaSuccess;
}

// A failure that is asked for comes when the capture has ended all the same.
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  emulator::Works works;
  *graph = nullptr;
  const cudaError_t status = emulator::End(stream, &works);
  const cudaError_t asked_for = StatusOfCall(__func__);
  if (status != cudaSuccess || asked_for != cudaSuccess) {
    return NoteError(status != cudaSuccess ? status : asked_for);
  }
  *graph = reinterpret_cast<cudaGraph_t>(new emulator::Works(std::move(works)));
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
  auto works = std::make_shared<emulator::Works>(*emulator::WorksOf(graph));
  *executable =
      reinterpret_cast<cudaGraphExec_t>(new std::shared_ptr<emulator::Works>(std::move(works)));
  ++emulator::executables;
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  const cudaError_t asked_for = StatusOfCall(__func__);
  if (asked_for != cudaSuccess) return NoteError(asked_for);
  ++emulator::graph_launches;
  const auto works = *emulator::WorksOf(executable);
  return NoteError(emulator::Enqueue(stream, [works] { return emulator::Run(*works); }));
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete emulator::WorksOf(graph);
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  const cudaError_t status = emulator::StatusOfUnsafeCall();
  if (status != cudaSuccess) return NoteError(status);
  delete emulator::WorksOf(executable);
  --emulator::executables;
  return cudaSuccess;
}
