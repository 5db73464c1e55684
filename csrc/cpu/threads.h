// How many threads a layer runs on, and how they share work.
#pragma once

#include <cstdint>
#include <functional>

namespace fastrnn {
namespace cpu {

// One thread for each physical core that the process may use. MXNet uses half of the logical
// processors, which leaves half of the cores idle if each has one hardware thread. If
// OMP_NUM_THREADS or MXNET_OMP_MAX_THREADS is set, OpenMP's number. In a forked child one thread,
// as in MXNet.
int Threads();

// Has Threads() return this number from now on; 0: its own choice. A forked child still has one.
void SetThreads(int threads);

// During its lifetime, ParallelFor of the calling thread shares work with this many threads.
// OpenMP, and so oneDNN, has one.
class ThreadScope {
 public:
  explicit ThreadScope(int threads);
  ~ThreadScope();
  ThreadScope(const ThreadScope&) = delete;
  ThreadScope& operator=(const ThreadScope&) = delete;

  // The number of threads of the calling thread's innermost scope; 1 outside of any.
  static int threads();

 private:
  int previous_, previous_openmp_;
};

// Calls body with a scope of this many threads. By default they are the library's own. With `team`
// they are the calling thread's OpenMP team, if OpenMP grants that many and lets idle threads spin,
// as it does unless OMP_WAIT_POLICY or GOMP_SPINCOUNT forbid it: spinning threads would take the
// processors from others for milliseconds. The call then ends with the team's barrier; after one
// that ended late, the thread's next calls are without the team. OpenMP ends the process if it
// cannot start a thread.
void RunOnThreads(int threads, bool team, const std::function<void()>& body);

// Calls body(task) for each task below `tasks`, on the threads of the scope. Threads take the next
// task as they get to it. The calling thread is one of them, and waits only for tasks that others
// have begun: unlike at a barrier, a thread that is not running holds up nothing, unless it was
// interrupted in a task. Tasks that call this do their own tasks alone. Throws an exception
// of a task, and LibraryError if a thread cannot be started.
void ParallelFor(int64_t tasks, const std::function<void(int64_t)>& body);

}  // namespace cpu
}  // namespace fastrnn
