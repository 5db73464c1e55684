// The persistent algorithm: the steps of a chunk of time in one cooperative launch.
#pragma once

#include "../../rnn.h"
#include "../plan.h"

namespace fastrnn {
namespace cuda {

// T is the layer's type, as in stepwise.h. The layer's device is current, and the plan is for this
// layer and device. If the device refuses a launch as too large, the remaining rows are run
// stepwise, unless desc.algorithm asks for persistent.
//
// ResidentBlocks: how many blocks of the plan's kernel, with its shared memory and in its clusters,
// the device holds at once if nothing else runs. The answer never changes, so that a layer's bytes
// and launches follow from the same plan.
template <class T>
struct PersistentForward {
  static size_t Bytes(const LayerDesc& desc, const PersistentPlan& plan);
  static void Run(const LayerDesc& desc, const ForwardArrays& args, bool tf32,
                  const PersistentPlan& plan);
  static int ResidentBlocks(const LayerDesc& desc, bool tf32, const PersistentPlan& plan);
};
template <class T>
struct PersistentBackward {
  static size_t Bytes(const LayerDesc& desc, const PersistentPlan& plan);
  static void Run(const LayerDesc& desc, const BackwardArrays& args, bool tf32,
                  const PersistentPlan& plan);
  static int ResidentBlocks(const LayerDesc& desc, bool tf32, const PersistentPlan& plan);
};

}  // namespace cuda
}  // namespace fastrnn
