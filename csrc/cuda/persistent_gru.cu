#include "persistent_kernels.h"

namespace fastrnn {
namespace cuda {

FASTRNN_PERSISTENT_KERNELS(GruCell)

}  // namespace cuda
}  // namespace fastrnn
