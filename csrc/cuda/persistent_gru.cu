#include "persistent_kernels.h"

namespace fastrnn {
namespace cuda {

FASTRNN_PERSISTENT_KERNELS(GruStep)

}  // namespace cuda
}  // namespace fastrnn
