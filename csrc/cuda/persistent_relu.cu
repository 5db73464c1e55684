#include "persistent_kernels.h"

namespace fastrnn {
namespace cuda {

FASTRNN_PERSISTENT_KERNELS(RnnStep<cell::ReluActivation>)

}  // namespace cuda
}  // namespace fastrnn
