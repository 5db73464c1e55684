#include "persistent_instances.cuh"

namespace fastrnn {
namespace cuda {

#define FASTRNN_INSTANTIATE(value, T) template struct Kernels<RnnCell, T>;
FASTRNN_CUDA_TYPES(FASTRNN_INSTANTIATE)

}  // namespace cuda
}  // namespace fastrnn
