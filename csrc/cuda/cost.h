// The cost model: predicts the time of a step, and of all steps, from the layer, the plan and a few
// facts about the device.
#pragma once

#include "problem.h"

namespace fastrnn {
namespace cuda {

// Of a plan that has been cut.
Cost PersistentCost(const Problem& problem, const PersistentPlan& plan);

Cost StepwiseCost(const Problem& problem);

}  // namespace cuda
}  // namespace fastrnn
