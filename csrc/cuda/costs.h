// What the steps of a pass cost, by a model.
#pragma once

#include "problem.h"

namespace fastrnn {
namespace cuda {

Cost CostOf(const Problem& problem, const PersistentPlan& plan);
Cost StepwiseCost(const Problem& problem);

}  // namespace cuda
}  // namespace fastrnn
