#include "persistent_kernels.h"

namespace fastrnn {
namespace cuda {

FASTRNN_PERSISTENT_KERNELS(RnnStep)

}  // namespace cuda
}  // namespace fastrnn
