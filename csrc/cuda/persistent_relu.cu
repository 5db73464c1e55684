#include "persistent_kernels.h"

namespace fastrnn {
namespace cuda {

FASTRNN_FORWARD_KERNELS(RnnStep<cell::ReluActivation>)

}  // namespace cuda
}  // namespace fastrnn
