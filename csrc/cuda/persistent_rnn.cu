#include "persistent_kernels.h"

namespace fastrnn {
namespace cuda {

FASTRNN_PERSISTENT_KERNELS(RnnCell)

}  // namespace cuda
}  // namespace fastrnn
