// The emulator's inside: the threads, warps and blocks of one launch, and the loop that gives each
// thread its turn. Only the emulator's own sources include this. They are compiled without
// ThreadSanitizer's instrumentation, which would take the scheduler's bookkeeping for races.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "emulator.h"
#include "fiber.h"
#include "schedule.h"

namespace emulator {

enum class State {
  kReady,
  kAtBarrier,
  kInWarp,
  kAtGrid,
  kAtCluster,
  kPolling,
  kAllocating,
  kFailed,
  kDone
};

struct Block;
struct Warp;

// One CUDA thread: a fiber, its place in the grid, and what it waits for.
struct Thread {
  Thread(HostContext* host, void (*entry)()) : fiber(host, entry) {}

  void Begin(Block* of_block, Warp* of_warp, unsigned of_lane, uint3 at);

  Fiber fiber;
  Block* block = nullptr;
  Warp* warp = nullptr;
  unsigned lane = 0;
  uint3 index{};

  State state = State::kReady;
  Site site{};
  // in a warp function
  unsigned mask = 0;
  void* data = nullptr;
  WarpFunction function = nullptr;
  // allocating a static array
  const void* key = nullptr;
  size_t bytes = 0;

  void* last_atomic = nullptr;
  bool fenced = false;
  // How often this thread has passed each barrier, modulo 2: threads of two successive rounds must
  // not meet at the same ThreadSanitizer address.
  bool barrier_round = false, grid_round = false, cluster_round = false;
};

// Lanes of one mask that wait in the same warp function.
struct Meeting {
  unsigned mask, arrived;
  WarpFunction function;
  Site site;
  Thread* threads[warpSize];
};

struct Warp {
  unsigned lanes = 0;  // those that exist
  std::vector<Meeting> meetings;
  char sync = 0;  // ThreadSanitizer's address of __syncwarp
};

// Shared memory, filled with NaN and aligned as on a GPU.
struct SharedArray {
  explicit SharedArray(size_t size);
  struct Free {
    void operator()(void* memory) const;
  };
  size_t bytes;
  std::unique_ptr<void, Free> memory;
};

struct Cluster {
  std::vector<Block*> blocks;  // null: has ended
  std::vector<Thread*> waiting;
  bool met = false;     // at a barrier: all have started
  char rounds[2] = {};  // ThreadSanitizer's addresses
};

struct Block {
  uint3 index{};
  std::shared_ptr<Cluster> cluster;
  size_t live = 0;
  std::vector<std::unique_ptr<Thread>> threads;
  std::vector<Warp> warps;
  std::vector<Thread*> waiting;  // at the barrier
  std::unique_ptr<SharedArray> dynamic_shared;
  std::vector<std::pair<const void*, SharedArray>> static_shared;
  char rounds[2] = {}, allocated = 0;  // ThreadSanitizer's addresses
};

class Grid;

// What an OS thread keeps from launch to launch: its fibers, since making one is slow.
struct Worker {
  HostContext host;
  std::vector<std::unique_ptr<Thread>> idle;
  Grid* grid = nullptr;
  Thread* current = nullptr;
  std::string failure;

  static Worker& Get();
};

// One launch.
class Grid {
 public:
  Grid(Worker* worker, const LaunchConfig& config, Schedule schedule,
       const std::function<void()>& body);
  // Returns what went wrong, or nothing.
  std::string Run();

  // For threads that run:
  void RunBody();
  void Park(State state, Site site);
  void NoteProgress() { ++progress_; }
  Order order() const { return ready_.order(); }
  RandomBits& random() { return ready_.random(); }
  char* grid_round(bool round) { return &grid_rounds_[round]; }

 private:
  size_t block_count() const;
  void StartBlock();
  void Resume(Thread* thread);
  void Handle(Thread* thread);
  void OnBarrier(Thread* thread);
  void OnWarp(Thread* thread);
  void OnGrid();
  void OnCluster(Thread* thread);
  void OnPoll(Thread* thread);
  void OnAllocate(Thread* thread);
  void OnDone(Thread* thread);
  void Release(std::vector<Thread*> threads);
  void GiveUp(const std::string& why);
  std::string Whereabouts() const;

  Worker* worker_;
  LaunchConfig config_;
  const std::function<void()>& body_;
  size_t threads_per_block_;
  size_t next_block_ = 0;
  std::vector<std::unique_ptr<Block>> resident_;
  std::shared_ptr<Cluster> cluster_;  // of the blocks that start now
  ReadyQueue<Thread*> ready_;
  size_t at_grid_ = 0;
  uint64_t progress_ = 0, progress_seen_ = 0, idle_polls_ = 0;
  std::string failure_;
  char start_ = 0, join_ = 0, grid_rounds_[2] = {};  // ThreadSanitizer's addresses
};

}  // namespace emulator
