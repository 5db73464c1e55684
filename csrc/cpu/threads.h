// How many OpenMP threads a layer runs on.
#pragma once

namespace fastrnn {
namespace cpu {

// One thread for each physical core that the process may use. MXNet uses half of the logical
// processors, which leaves half of the cores idle if each has one hardware thread. If
// OMP_NUM_THREADS or MXNET_OMP_MAX_THREADS is set, OpenMP's number. In a forked child one thread,
// as in MXNet.
int Threads();

// During its lifetime, parallel regions of the calling thread have this many threads.
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
