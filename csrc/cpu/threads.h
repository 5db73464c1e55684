// How many OpenMP threads a layer runs on.
#pragma once

namespace fastrnn {
namespace cpu {

// While it lives, the calling thread's parallel regions take one thread for each physical core that
// the process may use. MXNet limits its workers to half of the logical processors, which leaves
// half of a machine idle whose cores have one hardware thread each. Where OMP_NUM_THREADS or
// MXNET_OMP_MAX_THREADS is set, its owner has decided, and nothing changes. In a forked child it is
// one thread, as MXNet has it there too.
class ThreadScope {
 public:
  ThreadScope();
  ~ThreadScope();
  ThreadScope(const ThreadScope&) = delete;
  ThreadScope& operator=(const ThreadScope&) = delete;

 private:
  int previous_;
};

}  // namespace cpu
}  // namespace fastrnn
