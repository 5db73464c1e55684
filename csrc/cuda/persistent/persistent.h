// The persistent algorithm: the steps of a chunk of time in one cooperative launch.
#pragma once

#include "../../rnn.h"
#include "../plan.h"

namespace fastrnn {
namespace cuda {

// T is the layer's type, as in stepwise.h. The layer's device is current, and the plan is one for
// both. A launch that the device refuses as too large is replaced by stepwise ones for the
// rows that are left, unless desc.algorithm asks for persistent ones.
//
// ResidentBlocks: how many blocks of exactly the plan's kernel, with its shared memory and in its
// clusters, the device holds at once when nothing else runs. The answer never changes: bytes and
// launches of a layer are to come from the same plan.
template <class T>
struct PersistentForward {
  static size_t Bytes(const LayerDesc& desc, const PersistentPlan& plan);
  static void Run(const LayerDesc& desc, const ForwardArgs& args, bool tf32,
                  const PersistentPlan& plan);
  static int ResidentBlocks(const LayerDesc& desc, bool tf32, const PersistentPlan& plan);
};
template <class T>
struct PersistentBackward {
  static size_t Bytes(const LayerDesc& desc, const PersistentPlan& plan);
  static void Run(const LayerDesc& desc, const BackwardArgs& args, bool tf32,
                  const PersistentPlan& plan);
  static int ResidentBlocks(const LayerDesc& desc, bool tf32, const PersistentPlan& plan);
};

}  // namespace cuda
}  // namespace fastrnn
