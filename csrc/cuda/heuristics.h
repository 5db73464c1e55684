// Which algorithm runs a layer's steps, how it is cut, and why: functions of a problem and facts
// about a device, so that they can be asked about any device anywhere. No CUDA header.
#pragma once

#include <limits>
#include <string>

#include "../rnn.h"
#include "plan.h"

namespace fastrnn {
namespace cuda {

struct DeviceFacts {
  int capability = 0;       // 10 * major + minor
  int multiprocessors = 0;  // those that other work leaves free
  size_t shared_bytes = 0;  // the most that a block may have
  // How many of the multiprocessors clusters of kCluster blocks can take, one block on each: where
  // the number of a processing cluster's is no multiple of that, some are left over.
  int cluster_multiprocessors = 0;
  size_t l2_bytes = 0;  // of the L2 cache
  // What the kernels are compiled for, as 10 * major + minor, where that may be less than what the
  // device has: a kernel for newer devices is then empty. 0: they are the device's.
  int code_capability = 0;
  bool cooperative = true;  // whether there are cooperative launches
  // The most blocks that a grid without clusters may have, where a kernel's occupancy allows fewer
  // than one on each multiprocessor.
  int resident_blocks = std::numeric_limits<int>::max();

  // What was measured on the device, for those who ask what the model makes of it; 0: the model's
  // nominal figure. FactsOf leaves them 0: another plan may round otherwise, and the results of a
  // call shall depend on the problem and the device alone, never on a measurement.
  double exchange_us = 0.0;  // from a block's release of a flag to another block's acquire
  double memory_bytes_per_us = 0.0;
  double products_per_us = 0.0;  // multiplications with an addition, of one multiprocessor
  double host_us = 0.0;          // to issue a stepwise step
};

// What a step costs, and all steps, by the model of costs.cc. Figures are of one direction; µs
// of both where they are launched at once.
struct Cost {
  double flops = 0.0;         // a step, 2 for each multiplication and addition
  double l2_bytes = 0.0;      // a step, of all blocks, or from memory what L2 does not keep
  double memory_bytes = 0.0;  // once, the weights
  int synchronizations = 0;   // a step
  double step_us = 0.0;       // the floor
  double total_us = 0.0;      // all steps, directions and launches
};

struct Choice {
  bool persistent = false;
  PersistentPlan plan;  // where persistent
  Cost cost;            // of what was chosen
  std::string reason;
};

// What kernels may do with float32: not TF32 where the device has none.
bool AllowsTf32(bool wanted, const DeviceFacts& facts);

// tf32: whether float32 products may be rounded, on this device. Throws InvalidArgument where
// desc.algorithm asks for what cannot be.
Choice Choose(Pass pass, const LayerDesc& desc, bool tf32, const DeviceFacts& facts);

}  // namespace cuda
}  // namespace fastrnn
