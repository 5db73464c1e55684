#include "layer.h"

namespace fastrnn {
namespace cpu {

void ApplyMask(const LayerDesc& desc, const void* values, const void* mask, void* product) {
  ExpectCovered(desc);
  const ThreadScope threads;
  const auto* from = static_cast<const float*>(values);
  const auto* factors = static_cast<const float*>(mask);
  auto* to = static_cast<float*>(product);
  const int64_t count = desc.rows() * desc.directions * desc.hidden;
#pragma omp parallel for if (count >= kMinParallelUnits)
  for (int64_t i = 0; i < count; ++i) to[i] = from[i] * factors[i];
}

}  // namespace cpu
}  // namespace fastrnn
