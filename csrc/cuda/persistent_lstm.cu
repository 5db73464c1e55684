#include "persistent_kernels.h"

namespace fastrnn {
namespace cuda {

FASTRNN_FORWARD_KERNELS(LstmStep)

}  // namespace cuda
}  // namespace fastrnn
