#include "threads.h"

#include <omp.h>
#include <sched.h>

#include <cstdlib>
#include <fstream>
#include <set>
#include <string>

namespace fastrnn {
namespace cpu {
namespace {

// The cores of the processors that this process may run on, told apart by the list of hardware
// threads that share each; 0 where the system does not say.
int PhysicalCores() {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return 0;
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

// 0: leave the number as it is.
int ChosenThreads() {
  static const int threads =
      std::getenv("OMP_NUM_THREADS") != nullptr || std::getenv("MXNET_OMP_MAX_THREADS") != nullptr
          ? 0
          : PhysicalCores();
  return threads;
}

}  // namespace

ThreadScope::ThreadScope() : previous_(omp_get_max_threads()) {
  if (ChosenThreads() > 0) omp_set_num_threads(ChosenThreads());
}

ThreadScope::~ThreadScope() { omp_set_num_threads(previous_); }

}  // namespace cpu
}  // namespace fastrnn
