#include "../rnn.h"
#include "device_scope.h"
#include "mask.cuh"

namespace fastrnn {
namespace cuda {
namespace {

template <class T>
void Apply(const LayerDesc& desc, const void* values, const void* mask, void* product,
           void* stream) {
  LaunchMask(static_cast<const T*>(values), static_cast<const T*>(mask),
             desc.rows() * desc.directions * desc.hidden, static_cast<T*>(product),
             static_cast<cudaStream_t>(stream));
}

}  // namespace

void ApplyMask(const LayerDesc& desc, const void* values, const void* mask, void* product,
               void* stream) {
  const DeviceScope device(desc.device_index);
  switch (desc.dtype) {
    case DType::kFloat32:
      return Apply<float>(desc, values, mask, product, stream);
    case DType::kFloat16:
      return Apply<Half>(desc, values, mask, product, stream);
    case DType::kBfloat16:
      return Apply<Bfloat16>(desc, values, mask, product, stream);
  }
}

}  // namespace cuda
}  // namespace fastrnn
