#include "scheduler.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "sanitizers.h"

namespace emulator {
namespace {

constexpr size_t kSharedAlignment = 128;

// Blocks of a launch that is not cooperative run a few at a time, as on a GPU that they fill.
constexpr size_t kResidentBlocks = 8;
constexpr size_t kResidentThreads = 2048;

// Polls without progress, for each resident thread, after which no signal will ever come.
constexpr uint64_t kIdlePolls = 100;

void ThreadMain() {
  Worker::Get().current->fiber.Arrived();
  for (;;) Worker::Get().grid->RunBody();
}

bool SamePlace(const Site& a, const Site& b) {
  return a.line == b.line && std::strcmp(a.file, b.file) == 0;
}

std::string Triple(uint3 v) {
  return "(" + std::to_string(v.x) + "," + std::to_string(v.y) + "," + std::to_string(v.z) + ")";
}

uint3 Unflatten(size_t i, dim3 size) {
  return {static_cast<unsigned>(i % size.x), static_cast<unsigned>(i / size.x % size.y),
          static_cast<unsigned>(i / size.x / size.y)};
}

size_t Volume(dim3 size) { return static_cast<size_t>(size.x) * size.y * size.z; }

}  // namespace

void Thread::Begin(Block* of_block, Warp* of_warp, unsigned of_lane, uint3 at) {
  block = of_block;
  warp = of_warp;
  lane = of_lane;
  index = at;
  warp->lanes |= 1u << lane;
  state = State::kReady;
  site = {"not started", "", 0};
  last_atomic = nullptr;
  fenced = false;
  barrier_round = grid_round = cluster_round = false;
}

SharedArray::SharedArray(size_t size) : bytes(size), memory(nullptr) {
  void* memory_begin = nullptr;
  if (posix_memalign(&memory_begin, kSharedAlignment, size) != 0) throw std::bad_alloc();
  std::memset(memory_begin, 0xff, size);  // as a float or half: NaN
  memory.reset(memory_begin);
}

void SharedArray::Free::operator()(void* array) const { std::free(array); }

Worker& Worker::Get() {
  static thread_local Worker worker;
  return worker;
}

Grid::Grid(Worker* worker, const LaunchConfig& config, Schedule schedule,
           const std::function<void()>& body)
    : worker_(worker),
      config_(config),
      body_(body),
      threads_per_block_(Volume(config.block)),
      ready_(schedule) {}

size_t Grid::block_count() const { return Volume(config_.grid); }

std::string Grid::Run() {
  const TsanIgnore ignore;
  blockDim = config_.block;
  gridDim = config_.grid;
  const size_t window =
      config_.cooperative
          ? block_count()
          : std::max<size_t>(1, std::min(kResidentBlocks, kResidentThreads / threads_per_block_));
  while (failure_.empty()) {
    while (next_block_ < block_count() && resident_.size() < window) StartBlock();
    if (resident_.empty()) break;
    if (ready_.empty()) {
      GiveUp("deadlock: no thread can run");
      break;
    }
    Thread* thread = ready_.Pop();
    Resume(thread);
    Handle(thread);
  }
  TsanAcquire(&join_);
  // Threads that are stuck cannot be unwound: their fibers and what those refer to stay behind.
  for (auto& block : resident_) block.release();
  return failure_;
}

void Grid::StartBlock() {
  auto block = std::make_unique<Block>();
  block->index = Unflatten(next_block_++, config_.grid);
  block->live = threads_per_block_;
  block->warps.resize((threads_per_block_ + warpSize - 1) / warpSize);
  if (config_.shared_bytes > 0) {
    block->dynamic_shared = std::make_unique<SharedArray>(config_.shared_bytes);
  }
  std::vector<Thread*> started;
  for (size_t i = 0; i < threads_per_block_; ++i) {
    if (worker_->idle.empty()) {
      worker_->idle.push_back(std::make_unique<Thread>(&worker_->host, &ThreadMain));
    }
    block->threads.push_back(std::move(worker_->idle.back()));
    worker_->idle.pop_back();
    Thread* thread = block->threads.back().get();
    thread->Begin(block.get(), &block->warps[i / warpSize], i % warpSize,
                  Unflatten(i, config_.block));
    started.push_back(thread);
  }
  if (block->index.x % config_.cluster == 0) cluster_ = std::make_shared<Cluster>();
  block->cluster = cluster_;
  cluster_->blocks.push_back(block.get());
  TsanRelease(&start_);
  resident_.push_back(std::move(block));
  Release(std::move(started));
}

void Grid::Resume(Thread* thread) {
  worker_->current = thread;
  threadIdx = thread->index;
  blockIdx = thread->block->index;
  thread->fiber.Enter();
}

void Grid::RunBody() {
  TsanAcquire(&start_);
  body_();
  TsanRelease(&join_);
  Park(State::kDone, {"ended", "", 0});
}

void Grid::Park(State state, Site site) {
  Thread* thread = worker_->current;
  thread->state = state;
  thread->site = site;
  thread->fiber.Leave();
}

void Grid::Handle(Thread* thread) {
  switch (thread->state) {
    case State::kReady:
      return;
    case State::kAtBarrier:
      return OnBarrier(thread);
    case State::kInWarp:
      return OnWarp(thread);
    case State::kAtGrid:
      return OnGrid();
    case State::kAtCluster:
      return OnCluster(thread);
    case State::kPolling:
      return OnPoll(thread);
    case State::kAllocating:
      return OnAllocate(thread);
    case State::kFailed:
      return GiveUp(std::string(thread->site.what) + " at " + thread->site.file + ":" +
                    std::to_string(thread->site.line));
    case State::kDone:
      return OnDone(thread);
  }
}

void Grid::OnBarrier(Thread* thread) {
  std::vector<Thread*>& waiting = thread->block->waiting;
  if (!waiting.empty() && !SamePlace(waiting.front()->site, thread->site)) {
    return GiveUp("divergent barrier: threads of one block wait at different places");
  }
  waiting.push_back(thread);
  if (waiting.size() < threads_per_block_) return;
  Release(std::exchange(waiting, {}));
}

void Grid::OnWarp(Thread* thread) {
  Warp& warp = *thread->warp;
  const unsigned mask = thread->mask & warp.lanes;
  if ((mask >> thread->lane & 1) == 0) {
    return GiveUp("a lane called a warp function with a mask that leaves it out");
  }
  auto meeting = std::find_if(warp.meetings.begin(), warp.meetings.end(),
                              [&](const Meeting& m) { return m.mask == mask; });
  if (meeting == warp.meetings.end()) {
    warp.meetings.push_back({mask, 0, thread->function, thread->site, {}});
    meeting = warp.meetings.end() - 1;
  }
  if (meeting->function != thread->function || !SamePlace(meeting->site, thread->site)) {
    return GiveUp("divergent warp: lanes of one mask wait in different warp functions");
  }
  meeting->arrived |= 1u << thread->lane;
  meeting->threads[thread->lane] = thread;
  if (meeting->arrived != mask) return;

  void* data[warpSize] = {};
  std::vector<Thread*> lanes;
  for (int lane = 0; lane < warpSize; ++lane) {
    if ((mask >> lane & 1) == 0) continue;
    lanes.push_back(meeting->threads[lane]);
    data[lane] = lanes.back()->data;
  }
  if (thread->function != nullptr) thread->function(data, mask);
  warp.meetings.erase(meeting);
  Release(std::move(lanes));
}

void Grid::OnGrid() {
  if (!config_.cooperative) {
    return GiveUp("a grid barrier in a kernel that was not launched cooperatively");
  }
  if (++at_grid_ < threads_per_block_ * block_count()) return;
  at_grid_ = 0;
  std::vector<Thread*> all;
  for (const auto& block : resident_) {
    for (const auto& thread : block->threads) all.push_back(thread.get());
  }
  Release(std::move(all));
}

void Grid::OnCluster(Thread* thread) {
  std::vector<Thread*>& waiting = thread->block->cluster->waiting;
  if (!waiting.empty() && !SamePlace(waiting.front()->site, thread->site)) {
    return GiveUp("divergent barrier: threads of one cluster wait at different places");
  }
  waiting.push_back(thread);
  if (waiting.size() < threads_per_block_ * config_.cluster) return;
  thread->block->cluster->met = true;
  Release(std::exchange(waiting, {}));
}

void Grid::OnPoll(Thread* thread) {
  ready_.PushLast(thread);
  if (progress_ != progress_seen_) {
    progress_seen_ = progress_;
    idle_polls_ = 0;
  } else if (++idle_polls_ > kIdlePolls * (threads_per_block_ * resident_.size() + 100)) {
    GiveUp("livelock: every thread that can run polls for a signal that no thread gives");
  }
}

void Grid::OnAllocate(Thread* thread) {
  Block& block = *thread->block;
  block.static_shared.emplace_back(thread->key, SharedArray(thread->bytes));
  thread->data = block.static_shared.back().second.memory.get();
  TsanRelease(&block.allocated);
  ready_.Push(thread);
}

void Grid::OnDone(Thread* thread) {
  ++progress_;
  Block* block = thread->block;
  if (--block->live > 0) return;
  Block*& in_cluster = block->cluster->blocks[block->index.x % config_.cluster];
  in_cluster = nullptr;
  for (auto& ended : block->threads) worker_->idle.push_back(std::move(ended));
  // The kernel may have poisoned gaps in this memory; free() minds that no more than malloc() does.
  resident_.erase(std::find_if(resident_.begin(), resident_.end(),
                               [&](const auto& other) { return other.get() == block; }));
}

void Grid::Release(std::vector<Thread*> threads) {
  ++progress_;
  ready_.PushAll(std::move(threads));
}

void Grid::GiveUp(const std::string& why) { failure_ = "emulator: " + why + "\n" + Whereabouts(); }

std::string Grid::Whereabouts() const {
  std::map<std::string, std::pair<int, std::string>> places;  // number of threads, an example
  for (const auto& block : resident_) {
    for (const auto& thread : block->threads) {
      const Site& site = thread->site;
      auto& [count, example] =
          places[std::string(site.what) + " " + site.file + ":" + std::to_string(site.line)];
      if (count++ == 0) {
        example = "block " + Triple(block->index) + " thread " + Triple(thread->index);
      }
    }
  }
  std::string report;
  for (const auto& [place, threads] : places) {
    report += "  " + std::to_string(threads.first) + " thread(s), one of them " + threads.second +
              ", at: " + place + "\n";
  }
  return report;
}

}  // namespace emulator
