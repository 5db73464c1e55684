#include "persistent_instances.cuh"

namespace fastrnn {
namespace cuda {

template struct Kernels<LstmCell, float>;
template struct Kernels<LstmCell, Half>;
template struct Kernels<LstmCell, Bfloat16>;

}  // namespace cuda
}  // namespace fastrnn
