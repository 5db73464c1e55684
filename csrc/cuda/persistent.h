// The persistent algorithm: the steps of a chunk of time in one cooperative launch.
#pragma once

#include "../rnn.h"
#include "plan.h"

namespace fastrnn {
namespace cuda {

// T is the layer's type, as in stepwise.h. The device is current, and the plan is one for the layer
// and the device. A launch that the device refuses as too large is replaced by stepwise ones,
// unless desc.algorithm asks for persistent ones.
template <class T>
size_t PersistentForwardBytes(const LayerDesc& desc, const PersistentPlan& plan);
template <class T>
void PersistentForward(const LayerDesc& desc, const ForwardArgs& args, bool tf32,
                       const PersistentPlan& plan);
template <class T>
size_t PersistentBackwardBytes(const LayerDesc& desc, const PersistentPlan& plan);
template <class T>
void PersistentBackward(const LayerDesc& desc, const BackwardArgs& args, bool tf32,
                        const PersistentPlan& plan);

}  // namespace cuda
}  // namespace fastrnn
