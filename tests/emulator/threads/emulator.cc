// The functions of emulator.h, by means of scheduler.h.
#include "emulator.h"

#include <algorithm>

#include "capture.h"
#include "sanitizers.h"
#include "scheduler.h"
#include "shared_gap.h"

namespace emulator {
namespace {

Thread* Self() { return Worker::Get().current; }

void Park(State state, Site site) { Worker::Get().grid->Park(state, site); }

}  // namespace

int BlocksPerMultiprocessor(int threads, size_t shared_bytes) {
  if (threads < 1 || threads > kLimits.threads_per_block) return 0;
  if (shared_bytes > kLimits.shared_bytes_per_block) return 0;
  const size_t by_memory =
      kLimits.shared_bytes_per_multiprocessor / (shared_bytes + kLimits.shared_bytes_reserved);
  return std::min({kLimits.blocks_per_multiprocessor, kLimits.threads_per_multiprocessor / threads,
                   static_cast<int>(by_memory)});
}

int ResidentBlocks(int threads, size_t shared_bytes, unsigned cluster) {
  const int blocks = kLimits.multiprocessors * BlocksPerMultiprocessor(threads, shared_bytes);
  const int left = LimitedBlocks(blocks, cluster);
  return left - left % static_cast<int>(cluster);
}

namespace {

cudaError_t StatusOf(const LaunchConfig& config) {
  const cudaError_t asked_for = StatusOfLaunch();
  if (asked_for != cudaSuccess) return asked_for;
  const auto volume = [](dim3 d) { return static_cast<size_t>(d.x) * d.y * d.z; };
  const size_t threads = volume(config.block), blocks = volume(config.grid);
  if (threads == 0 || threads > static_cast<size_t>(kLimits.threads_per_block) || blocks == 0 ||
      config.grid.y > 65535 || config.grid.z > 65535) {
    return cudaErrorInvalidConfiguration;
  }
  const int block_threads = static_cast<int>(threads);
  if (BlocksPerMultiprocessor(block_threads, config.shared_bytes) == 0) {
    return cudaErrorInvalidValue;
  }
  if (config.cluster == 0 || config.grid.x % config.cluster != 0) {
    return cudaErrorInvalidClusterSize;
  }
  const int resident = ResidentBlocks(block_threads, config.shared_bytes, config.cluster);
  if (config.cooperative && blocks > static_cast<size_t>(resident)) {
    return cudaErrorCooperativeLaunchTooLarge;
  }
  return cudaSuccess;
}

using Body = std::shared_ptr<const std::function<void()>>;

cudaError_t Run(const LaunchConfig& config, const Body& body) {
  Worker& worker = Worker::Get();
  Grid grid(&worker, config, ScheduleFromEnvironment(), *body);
  worker.grid = &grid;
  worker.failure = grid.Run();
  worker.grid = nullptr;
  worker.current = nullptr;
  if (worker.failure.empty()) return cudaSuccess;
  new Body(body);  // Threads that are stuck refer to it.
  return cudaErrorLaunchFailure;
}

}  // namespace

cudaError_t LaunchBody(const LaunchConfig& config, std::function<void()> body) {
  const cudaError_t status = StatusOf(config);
  if (status != cudaSuccess) return NoteError(status);
  const Body shared = std::make_shared<const std::function<void()>>(std::move(body));
  return NoteError(Enqueue(config.stream, [config, shared] { return Run(config, shared); }));
}

const std::string& LastFailure() { return Worker::Get().failure; }

void WaitAtBarrier(Site site) {
  if (IsLeftOut(site)) return;
  Thread* self = Self();
  char* meeting = &self->block->rounds[self->barrier_round];
  self->barrier_round = !self->barrier_round;
  TsanRelease(meeting);
  Park(State::kAtBarrier, site);
  TsanAcquire(meeting);
}

void WaitForGrid(Site site) {
  if (IsLeftOut(site)) return;
  Thread* self = Self();
  char* meeting = Worker::Get().grid->grid_round(self->grid_round);
  self->grid_round = !self->grid_round;
  TsanRelease(meeting);
  Park(State::kAtGrid, site);
  TsanAcquire(meeting);
}

void WaitForCluster(Site site) {
  if (IsLeftOut(site)) return;
  Thread* self = Self();
  char* meeting = &self->block->cluster->rounds[self->cluster_round];
  self->cluster_round = !self->cluster_round;
  TsanRelease(meeting);
  Park(State::kAtCluster, site);
  TsanAcquire(meeting);
}

void ExchangeInWarp(unsigned mask, void* data, WarpFunction function, Site site) {
  Thread* self = Self();
  self->mask = mask;
  self->data = data;
  self->function = function;
  Park(State::kInWarp, site);
}

void WaitForWarp(unsigned mask, Site site) {
  if (IsLeftOut(site)) return;
  char* meeting = &Self()->warp->sync;
  TsanRelease(meeting);
  ExchangeInWarp(mask, nullptr, nullptr, site);
  TsanAcquire(meeting);
}

void Poll(Site site) { Park(State::kPolling, site); }

void PerhapsYield(Site site) {
  Grid* grid = Worker::Get().grid;
  if (grid->order() == Order::kRandom && grid->random().Below(4) == 0) Poll(site);
}

void NoteProgress() { Worker::Get().grid->NoteProgress(); }

void Fail(const char* what, Site site) { Park(State::kFailed, {what, site.file, site.line}); }

void* StaticShared(const void* key, size_t bytes) {
  Thread* self = Self();
  void* memory = nullptr;
  for (const auto& [other, array] : self->block->static_shared) {
    if (other == key) memory = array.memory.get();
  }
  if (memory == nullptr) {
    self->key = key;
    self->bytes = bytes;
    Park(State::kAllocating, {"making a shared array", "", 0});
    memory = self->data;
  }
  TsanAcquire(&self->block->allocated);
  return memory;
}

unsigned char* DynamicShared() {
  const auto& array = Self()->block->dynamic_shared;
  return array == nullptr ? nullptr : static_cast<unsigned char*>(array->memory.get());
}

void* ClusterShared(void* own, unsigned rank, Site site) {
  const Block& block = *Self()->block;
  const auto offset = static_cast<unsigned char*>(own) - DynamicShared();
  if (block.dynamic_shared == nullptr || offset < 0 ||
      static_cast<size_t>(offset) >= block.dynamic_shared->bytes) {
    Fail("an address that is not in the block's dynamic shared memory", site);
  }
  if (rank >= block.cluster->blocks.size()) Fail("a block that the cluster does not have", site);
  if (!block.cluster->met) Fail("a block of the cluster that may not have started", site);
  const Block* other = block.cluster->blocks[rank];
  if (other == nullptr) Fail("a block of the cluster that has ended", site);
  return static_cast<unsigned char*>(other->dynamic_shared->memory.get()) + offset;
}

void GuardGap(const void* begin, size_t bytes) { AsanPoison(begin, bytes); }

void Fence(Site site) {
  if (IsLeftOut(site)) return;
  Thread* self = Self();
  self->fenced = true;
  if (self->last_atomic != nullptr) TsanAcquire(self->last_atomic);
}

bool BeforeAtomic(void* address, Site site) {
  PerhapsYield(site);
  NoteProgress();
  Thread* self = Self();
  self->last_atomic = address;
  return self->fenced;
}

}  // namespace emulator
