#include "persistent_kernels.h"

namespace fastrnn {
namespace cuda {

FASTRNN_FORWARD_KERNELS(GruStep)

}  // namespace cuda
}  // namespace fastrnn
