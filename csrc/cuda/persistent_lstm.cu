#include "persistent_kernels.h"

namespace fastrnn {
namespace cuda {

FASTRNN_PERSISTENT_KERNELS(LstmCell)

}  // namespace cuda
}  // namespace fastrnn
