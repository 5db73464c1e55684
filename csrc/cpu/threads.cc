#include "threads.h"

#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <strings.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <deque>
#include <exception>
#include <fstream>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "../error.h"

namespace fastrnn {
namespace cpu {
namespace {

// A forked child has none of the parent's threads.
std::atomic<bool> forked{false};
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, [] { forked = true; });

// The processors that this process may run on; none if the system does not tell.
cpu_set_t AllowedProcessors() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  const int places = omp_get_num_places();
  if (places == 0) sched_getaffinity(getpid(), sizeof allowed, &allowed);
  // If OpenMP binds threads (OMP_PROC_BIND), a thread's own mask covers only its current place.
  for (int place = 0; place < places; ++place) {
    std::vector<int> processors(omp_get_place_num_procs(place));
    omp_get_place_proc_ids(place, processors.data());
    for (int processor : processors) CPU_SET(processor, &allowed);
  }
  return allowed;
}

// The number of cores of these processors, identified by their lists of hardware threads; 0 if the
// system does not tell.
int PhysicalCores(const cpu_set_t& allowed) {
  std::set<std::string> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed)) continue;
    std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) +
                       "/topology/thread_siblings_list");
    std::string siblings;
    if (!std::getline(file, siblings)) return 0;
    cores.insert(siblings);
  }
  return static_cast<int>(cores.size());
}

std::atomic<int> threads_set{0};

}  // namespace

void SetThreads(int threads) { threads_set = threads; }

int Threads() {
  if (forked) return 1;
  if (threads_set > 0) return threads_set;
  static const int cores =
      std::getenv("OMP_NUM_THREADS") != nullptr || std::getenv("MXNET_OMP_MAX_THREADS") != nullptr
          ? 0
          : PhysicalCores(AllowedProcessors());
  return cores > 0 ? cores : omp_get_max_threads();
}

namespace {

thread_local int scope_threads = 1;

// Turns of a loop that waits before it gives up its processor: a fifth of a millisecond on a Zen 3,
// a few times what waking a thread takes. With ten times as many, layers beside a busy process take
// up to half as long again; with a fourth, those on a free machine do.
constexpr int kSpins = 4000;

template <class Condition>
bool SpinUntil(Condition condition) {
  for (int i = 0; i < kSpins; ++i) {
    if (condition()) return true;
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
  return condition();
}

// One call of ParallelFor. A thread may still look at it when the call has returned.
class Job {
 public:
  Job(int64_t tasks, const std::function<void(int64_t)>& body) : tasks_(tasks), body_(body) {}

  // Does tasks that no thread has taken until there are none.
  void Run() {
    for (int64_t task = next_++; task < tasks_; task = next_++) {
      try {
        body_(task);
      } catch (...) {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (!error_) error_ = std::current_exception();
      }
      if (++finished_ < tasks_) continue;
      const std::lock_guard<std::mutex> lock(mutex_);  // between the waiting thread's look and wait
      all_finished_.notify_one();
    }
  }

  // Waits for the tasks that others have taken.
  void Wait() {
    const auto finished = [this] { return finished_ == tasks_; };
    std::unique_lock<std::mutex> lock(mutex_, std::defer_lock);
    if (!SpinUntil(finished)) {
      lock.lock();
      all_finished_.wait(lock, finished);
    } else {
      lock.lock();
    }
    if (error_) std::rethrow_exception(error_);
  }

 private:
  const int64_t tasks_;
  const std::function<void(int64_t)>& body_;
  std::atomic<int64_t> next_{0}, finished_{0};
  std::mutex mutex_;
  std::condition_variable all_finished_;
  std::exception_ptr error_;
};

// While it lives, threads that the calling thread starts get no signals, which are for the threads
// that the program has. A fault's own signal still reaches its handler.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t signals;
    sigfillset(&signals);
    for (int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP}) {
      sigdelset(&signals, fault);
    }
    pthread_sigmask(SIG_SETMASK, &signals, &previous_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &previous_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t previous_;
};

// Threads beside the callers', and what they are offered. Any of them helps any caller.
class Helpers {
 public:
  // Offers the job to this many threads.
  void Offer(const std::shared_ptr<Job>& job, int count) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      offers_.insert(offers_.end(), static_cast<size_t>(count), job);
      awaited_ = false;
    }
    for (int i = 0; i < count; ++i) wake_.notify_one();
  }

  // Takes back what no thread has accepted.
  void Withdraw(const std::shared_ptr<Job>& job) {
    const std::lock_guard<std::mutex> lock(mutex_);
    offers_.erase(std::remove(offers_.begin(), offers_.end(), job), offers_.end());
    awaited_ = offers_.empty();
  }

  // Has the threads return from Help().
  void Dismiss() {
    const std::lock_guard<std::mutex> lock(mutex_);
    dismissed_ = true;
    awaited_ = false;
    wake_.notify_all();
  }

  // What each of the threads does.
  void Help() {
    omp_set_num_threads(1);
    while (const std::shared_ptr<Job> job = Accept()) job->Run();
  }

 private:
  // Null if the threads are dismissed.
  std::shared_ptr<Job> Accept() {
    SpinUntil([this] { return !awaited_; });
    std::unique_lock<std::mutex> lock(mutex_);
    wake_.wait(lock, [this] { return dismissed_ || !offers_.empty(); });
    if (dismissed_) return nullptr;
    std::shared_ptr<Job> job = offers_.front();
    offers_.pop_front();
    awaited_ = offers_.empty();
    return job;
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::shared_ptr<Job>> offers_;
  std::atomic<bool> awaited_{true};  // whether there is nothing to do yet
  bool dismissed_ = false;
};

// The library's own threads, which are there until the process ends.
class OwnHelpers {
 public:
  // Returns them, at least `count`.
  static Helpers* Get(int count) {
    static auto* const own = new OwnHelpers;  // never destroyed
    const std::lock_guard<std::mutex> lock(own->mutex_);
    for (; own->threads_ < count; ++own->threads_) own->Start();
    return &own->helpers_;
  }

 private:
  void Start() {
    const SignalsBlocked blocked;
    try {
      std::thread([this] { Help(); }).detach();
    } catch (const std::system_error& e) {
      throw LibraryError(std::string("a thread cannot be started: ") + e.what(), __FILE__,
                         __LINE__);
    }
  }

  void Help() {
    // The thread that started this one may be bound to a single processor. If the system refuses,
    // this one stays there.
    const cpu_set_t allowed = AllowedProcessors();
    if (CPU_COUNT(&allowed) > 0) sched_setaffinity(0, sizeof allowed, &allowed);
    helpers_.Help();
  }

  Helpers helpers_;
  std::mutex mutex_;
  int threads_ = 0;
};

// In a parallel region that RunOnThreads began: the other threads of the team.
thread_local Helpers* team_helpers = nullptr;

// Whether the idle threads of OpenMP's teams spin.
bool IdleThreadsSpin() {
  static const bool spin = [] {
    const char* const policy = std::getenv("OMP_WAIT_POLICY");
    const char* const turns = std::getenv("GOMP_SPINCOUNT");
    return (policy == nullptr || strcasecmp(policy, "passive") != 0) &&
           (turns == nullptr || std::string(turns) != "0");
  }();
  return spin;
}

// A team ends with a barrier. If it ends this late, a thread had no processor. Then this many
// passes of the calling thread run on our threads, which hold it up only in a task. Beside a busy
// process, layers take four fifths of the time in the median.
constexpr std::chrono::microseconds kLate(500);
constexpr int kPassesWithoutTeam = 30;
thread_local int passes_without_team = 0;

// Calls body on the first thread of a team of OpenMP's. The others help it.
void RunOnTeam(int threads, const std::function<void()>& body) {
  using Clock = std::chrono::steady_clock;
  Helpers helpers;
  std::exception_ptr error;
  Clock::time_point finished;
#pragma omp parallel num_threads(threads)
  if (omp_get_thread_num() > 0) {
    helpers.Help();
  } else {
    // The shares of work, and so the rounding, do not depend on how many threads OpenMP grants.
    const ThreadScope scope(threads);
    if (omp_get_num_threads() == threads) team_helpers = &helpers;
    try {
      body();
    } catch (...) {
      error = std::current_exception();
    }
    team_helpers = nullptr;
    helpers.Dismiss();
    finished = Clock::now();
  }
  if (Clock::now() - finished > kLate) passes_without_team = kPassesWithoutTeam;
  if (error) std::rethrow_exception(error);
}

}  // namespace

ThreadScope::ThreadScope(int threads)
    : previous_(scope_threads), previous_openmp_(omp_get_max_threads()) {
  scope_threads = threads;
  omp_set_num_threads(1);
}

ThreadScope::~ThreadScope() {
  scope_threads = previous_;
  omp_set_num_threads(previous_openmp_);
}

int ThreadScope::threads() { return scope_threads; }

void RunOnThreads(int threads, bool team, const std::function<void()>& body) {
  if (team && threads > 1 && !forked && threads == omp_get_max_threads() && IdleThreadsSpin()) {
    if (passes_without_team == 0) return RunOnTeam(threads, body);
    --passes_without_team;
  }
  const ThreadScope scope(threads);
  body();
}

void ParallelFor(int64_t tasks, const std::function<void(int64_t)>& body) {
  const auto wanted = static_cast<int>(std::min<int64_t>(scope_threads, tasks)) - 1;
  const ThreadScope alone(1);
  if (wanted < 1) {
    for (int64_t task = 0; task < tasks; ++task) body(task);
    return;
  }
  Helpers* const helpers = team_helpers != nullptr ? team_helpers : OwnHelpers::Get(wanted);
  const auto job = std::make_shared<Job>(tasks, body);
  helpers->Offer(job, wanted);
  job->Run();
  helpers->Withdraw(job);
  job->Wait();
}

}  // namespace cpu
}  // namespace fastrnn
