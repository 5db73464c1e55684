#include "persistent_instances.cuh"

namespace fastrnn {
namespace cuda {

template struct Kernels<RnnCell, float>;
template struct Kernels<RnnCell, Half>;
template struct Kernels<RnnCell, Bfloat16>;

}  // namespace cuda
}  // namespace fastrnn
