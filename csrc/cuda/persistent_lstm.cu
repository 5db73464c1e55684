#include "persistent_kernels.h"

namespace fastrnn {
namespace cuda {

FASTRNN_PERSISTENT_KERNELS(LstmStep)

}  // namespace cuda
}  // namespace fastrnn
