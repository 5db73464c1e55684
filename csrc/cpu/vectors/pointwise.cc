#include "pointwise.h"

#include <algorithm>
#include <iterator>

#include "../../cells/traits.h"
#include "clones.h"

namespace fastrnn {
namespace cpu {
namespace {

template <class Real>
struct Functions {
  ForwardUnits<Real> forward;
  BackwardUnits<Real> backward;
};
template <class Real>
struct Kernels {
  Functions<Real> modes[std::size(kCells)];  // in the order of Mode
  ForwardUnits<Real> clipped_lstm;
};

#define FASTRNN_VECTOR_CODE "cpu/vectors/pointwise_lanes.h"
#include "instruction_sets.h"

template <class Real>
const Kernels<Real> kernels = FASTRNN_FOR_THIS_PROCESSOR(kKernels<Real>);

template <class Real>
FASTRNN_HOST_DEVICE void AddRows(const Real* matrix, int64_t rows, int64_t stride, int64_t begin,
                                 int64_t end, bool accumulate, Real* sums) {
  if (!accumulate) std::fill(sums + begin, sums + end, Real(0));
  for (int64_t row = 0; row < rows; ++row) {
    const Real* values = matrix + row * stride;
#pragma omp simd
    for (int64_t j = begin; j < end; ++j) sums[j] += values[j];
  }
}

}  // namespace

template <class Real>
ForwardUnits<Real> ForwardOf(const LayerDesc& desc) {
  if (desc.clip.clips()) return kernels<Real>.clipped_lstm;
  return kernels<Real>.modes[static_cast<size_t>(desc.mode)].forward;
}
template <class Real>
BackwardUnits<Real> BackwardOf(Mode mode) {
  return kernels<Real>.modes[static_cast<size_t>(mode)].backward;
}
template ForwardUnits<float> ForwardOf<float>(const LayerDesc& desc);
template ForwardUnits<double> ForwardOf<double>(const LayerDesc& desc);
template BackwardUnits<float> BackwardOf<float>(Mode mode);
template BackwardUnits<double> BackwardOf<double>(Mode mode);

FASTRNN_CLONES void SumRows(const float* matrix, int64_t rows, int64_t stride, int64_t begin,
                            int64_t end, bool accumulate, float* sums) {
  AddRows(matrix, rows, stride, begin, end, accumulate, sums);
}
FASTRNN_CLONES void SumRows(const double* matrix, int64_t rows, int64_t stride, int64_t begin,
                            int64_t end, bool accumulate, double* sums) {
  AddRows(matrix, rows, stride, begin, end, accumulate, sums);
}

}  // namespace cpu
}  // namespace fastrnn
