#include "threads.h"

#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <set>
#include <string>
#include <vector>

namespace fastrnn {
namespace cpu {
namespace {

// A forked child has no OpenMP threads, but its runtime may wait for the parent's forever. With one
// thread it waits for none.
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

}  // namespace

int Threads() {
  if (forked) return 1;
  static const int cores =
      std::getenv("OMP_NUM_THREADS") != nullptr || std::getenv("MXNET_OMP_MAX_THREADS") != nullptr
          ? 0
          : PhysicalCores(AllowedProcessors());
  return cores > 0 ? cores : omp_get_max_threads();
}

ThreadScope::ThreadScope(int threads) : previous_(omp_get_max_threads()) {
  omp_set_num_threads(threads);
}

ThreadScope::~ThreadScope() { omp_set_num_threads(previous_); }

}  // namespace cpu
}  // namespace fastrnn
