#include "persistent_kernels.h"

namespace fastrnn {
namespace cuda {

FASTRNN_PERSISTENT_KERNELS(RnnStep<cell::TanhActivation>)

}  // namespace cuda
}  // namespace fastrnn
