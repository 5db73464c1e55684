// How many OpenMP threads a layer runs on.
#pragma once

namespace fastrnn {
namespace cpu {

// One thread for each physical core that the process may use. MXNet limits its workers to half of
// the logical processors, which leaves half of a machine idle whose cores have one hardware thread
// each. Where OMP_NUM_THREADS or MXNET_OMP_MAX_THREADS is set, its owner has decided, and it is
// what OpenMP says. In a forked child it is one thread, as MXNet has it there too.
int Threads();

// While it lives, the calling thread's parallel regions have this many threads.
class ThreadScope {
 public:
  explicit ThreadScope(int threads);
  ~ThreadScope();
  ThreadScope(const ThreadScope&) = delete;
  ThreadScope& operator=(const ThreadScope&) = delete;

 private:
  int previous_;
};

}  // namespace cpu
}  // namespace fastrnn
