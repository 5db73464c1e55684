#include "persistent_instances.cuh"

namespace fastrnn {
namespace cuda {

template struct Kernels<GruCell, float>;
template struct Kernels<GruCell, Half>;
template struct Kernels<GruCell, Bfloat16>;

}  // namespace cuda
}  // namespace fastrnn
