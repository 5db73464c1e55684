#include "plan.h"

#include <cstdio>
#include <iterator>
#include <optional>

#include "../error.h"
#include "cost.h"

namespace fastrnn {
namespace cuda {
namespace {

// ---- obstacles ----------------------------------------------------------------------------------

// The kernels' compute capability: the device's, or what they are compiled for.
int CapabilityOfKernels(const DeviceFacts& facts) {
  return facts.code_capability > 0 ? std::min(facts.capability, facts.code_capability)
                                   : facts.capability;
}

// Why no persistent kernel can run or, unless it is forced, should run. Empty if there is no
// reason.
std::string Obstacle(const Problem& problem, bool forced) {
  const DeviceFacts& facts = problem.facts;
  const int kernels = CapabilityOfKernels(facts);
  const std::string compiled = kernels == facts.capability ? ""
                                                           : ", and these are compiled for " +
                                                                 std::to_string(kernels / 10) +
                                                                 "." + std::to_string(kernels % 10);
  if (problem.desc.projected()) return "persistent kernels do not project the output";
  if (problem.desc.layer_norm) return "persistent kernels do not normalise";
  if (problem.pass == Pass::kForward && problem.desc.clip.clips()) {
    return "persistent kernels do not clip the cell state";
  }
  if (problem.desc.noise.any()) {
    return "persistent kernels have neither zoneout nor dropout of the state";
  }
  if (problem.desc.steps == 1 && !forced) {
    return "a single step gains nothing from weights kept on the chip";
  }
  if (!facts.cooperative) return "the device has no cooperative launches";
  if (!problem.tensor_cores) return "";
  if (problem.desc.dtype == DType::kFloat16) {
    return kernels >= 75 ? ""
                         : "persistent kernels need compute capability 7.5 for float16" + compiled;
  }
  return kernels >= 80
             ? ""
             : "persistent kernels need compute capability 8.0 for bfloat16 and TF32" + compiled;
}

// ---- plans --------------------------------------------------------------------------------------

size_t SharedBytes(const Problem& problem, const PersistentPlan& plan) {
  SharedCarver carver(nullptr);
  if (plan.scatters()) {
    ScatterMemory(ScatterShapeOf(problem, plan), &carver);
    return carver.bytes();
  }
  const ProductShape shape = ShapeOf(problem, plan);
  ProductMemory(shape, &carver);
  if (plan.cluster() > 1) ClusterMemory(shape, &carver);
  return carver.bytes();
}

// Whether the instance serves the problem, and the device can run it.
bool CanRun(const Problem& problem, const Instance& kernel) {
  if (!kernel.Serves(problem.pass, problem.gates() > 1, problem.math())) return false;
  const bool clusters = problem.facts.capability == 90 && CapabilityOfKernels(problem.facts) == 90;
  return kernel.reduction != Reduction::kInCluster || clusters;
}

// Keeps as many slices of a streaming plan in shared memory as fit, or as were asked for. False if
// the plan does not fit without any.
bool CutStream(const Problem& problem, PersistentPlan* plan) {
  plan->shared_slices = 0;
  const size_t least = SharedBytes(problem, *plan);
  if (least > problem.facts.shared_bytes) return false;
  plan->shared_slices = 1;
  const size_t slice = SharedBytes(problem, *plan) - least;
  const size_t most = slice == 0 ? 0 : (problem.facts.shared_bytes - least) / slice;
  plan->shared_slices = problem.desc.algorithm.shared_slices.value_or(static_cast<int>(most));
  const ProductShape shape = ShapeOf(problem, *plan);
  plan->streamed_slices = shape.streamed_slices_per_warp();
  plan->streamed_words = shape.streamed_words();
  return true;
}

// Cuts the problem into the instance's tiles; false if they do not fit the device.
bool Cut(const Problem& problem, int directions, PersistentPlan* plan) {
  const Instance& kernel = plan->kernel();
  const int64_t H = problem.desc.hidden, rows = kTileRows * kernel.row_tiles;
  if (H > (1 << 20) || problem.desc.batch > (1 << 20)) return false;  // Far from fitting.
  const bool forward = problem.pass == Pass::kForward;
  const int parts = plan->tile_parts(), cluster = plan->cluster();
  plan->units = static_cast<int>(rows / (forward ? problem.gates() : parts));
  const int64_t blocks = forward ? CeilDiv(H, plan->units) : CeilDiv(H, rows) * parts;
  plan->blocks = static_cast<int>(CeilDiv(blocks, cluster) * cluster);
  if (kernel.streams && !CutStream(problem, plan)) return false;
  plan->shared_bytes = SharedBytes(problem, *plan);
  plan->directions = directions;
  const DeviceFacts& facts = problem.facts;
  const int usable = std::min(facts.multiprocessors,
                              cluster > 1 ? facts.cluster_multiprocessors : facts.resident_blocks);
  const int64_t room = usable / (plan->blocks * directions);
  const int64_t all = CeilDiv(problem.desc.batch, kTileBatch * kernel.batch_tiles);
  const std::optional<int>& wanted = problem.desc.algorithm.groups;
  plan->groups = static_cast<int>(std::min(wanted ? *wanted : room, all));
  if (plan->groups == 0 || plan->groups > room) return false;
  if (plan->shared_bytes > facts.shared_bytes) return false;
  plan->launches = static_cast<int>(CeilDiv(all, plan->groups));
  return true;
}

// ---- the choice ---------------------------------------------------------------------------------

// Whether the plan, which has been cut, is one that was asked for.
bool IsWanted(const Algorithm& wanted, Pass pass, const PersistentPlan& plan) {
  const auto agrees = [](std::optional<int> want, int have) { return !want || *want == have; };
  const Instance& kernel = plan.kernel();
  if (!agrees(wanted.batch_tiles, kernel.batch_tiles)) return false;
  if (wanted.shared_slices && !kernel.streams) return false;
  if (pass == Pass::kForward && !agrees(wanted.tagged, plan.tagged() ? 1 : 0)) return false;
  const bool may_cluster = plan.tile_parts() > 1;
  if (may_cluster && !agrees(wanted.cluster, plan.cluster() > 1 ? 1 : 0)) return false;
  if (pass == Pass::kForward) return agrees(wanted.row_tiles, kernel.row_tiles);
  return agrees(wanted.backward_row_tiles, kernel.row_tiles) &&
         agrees(wanted.split, plan.parts_of_k());
}

std::string Format(double us) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", us);
  return text;
}

// A grid in clusters must cost at least this share less than the best one without: it leaves some
// multiprocessors idle (4 of an H100's 132), and the model of clusters has not been measured, so a
// tie goes to the simpler launch. The one taken must then be cheaper than stepwise.
constexpr double kClusterGain = 0.05;

// So must one with tagged words, unless they were asked for: they have not run on a GPU.
constexpr double kTaggedGain = 0.1;

struct Candidate {
  PersistentPlan plan;
  Cost cost;

  bool IsBetterThan(const Candidate& other, const Algorithm& wanted) const {
    return Weighed(wanted) < other.Weighed(wanted);
  }

 private:
  double Weighed(const Algorithm& wanted) const {
    return plan.tagged() && wanted.tagged != 1 ? cost.total_us / (1.0 - kTaggedGain)
                                               : cost.total_us;
  }
};

// The cheapest of the wanted plans that fit, with and without clusters.
struct Cheapest {
  std::optional<Candidate> plain, clustered;

  // Whether to take the one with clusters. If clusters were asked for, they need not gain.
  bool TakesClusters(const Algorithm& wanted) const {
    if (!plain || !clustered) return clustered.has_value();
    const double gain = wanted.cluster == 1 ? 0.0 : kClusterGain;
    return clustered->cost.total_us <= (1.0 - gain) * plain->cost.total_us;
  }

  // About clusters, if there was a choice.
  std::string Reason() const {
    if (!plain || !clustered) return "";
    return "; with clusters " + Format(clustered->cost.total_us) + " us in all, without " +
           Format(plain->cost.total_us);
  }
};

Cheapest FindCheapest(const Problem& problem) {
  const Algorithm& wanted = problem.desc.algorithm;
  Cheapest cheapest;
  for (size_t i = 0; i < std::size(kInstances); ++i) {
    if (!CanRun(problem, kInstances[i])) continue;
    PersistentPlan plan;
    plan.instance = i;
    const int64_t most = problem.directions_at_once();
    for (int directions = 1; directions <= most; ++directions) {
      if (wanted.directions && directions != std::min<int64_t>(*wanted.directions, most)) continue;
      if (!Cut(problem, directions, &plan)) continue;
      if (!IsWanted(wanted, problem.pass, plan)) continue;
      const Candidate found{plan, PersistentCost(problem, plan)};
      std::optional<Candidate>& best = plan.cluster() > 1 ? cheapest.clustered : cheapest.plain;
      if (!best || found.IsBetterThan(*best, wanted)) best = found;
    }
  }
  return cheapest;
}

constexpr int kTf32Capability = 80;

}  // namespace

void ExpectType(DType dtype) {
  FASTRNN_EXPECTS(dtype != DType::kFloat64,
                  "dtype is float64, expected float32, float16 or bfloat16 on CUDA");
}

bool AllowsTf32(bool wanted, const DeviceFacts& facts) {
  return wanted && facts.capability >= kTf32Capability;
}

Choice Choose(Pass pass, const LayerDesc& desc, bool tf32, const DeviceFacts& facts) {
  ExpectType(desc.dtype);
  const Problem problem(pass, desc, tf32, facts);
  Choice choice;
  choice.cost = StepwiseCost(problem);
  const bool forced = desc.algorithm.kind == Algorithm::Kind::kPersistent;
  if (desc.algorithm.kind == Algorithm::Kind::kStepwise) {
    choice.reason = "stepwise was asked for";
    return choice;
  }
  std::string obstacle = Obstacle(problem, forced);
  Cheapest cheapest;
  if (obstacle.empty()) cheapest = FindCheapest(problem);
  if (obstacle.empty() && !cheapest.plain && !cheapest.clustered) {
    obstacle = "no persistent kernel fits " + std::to_string(facts.multiprocessors) +
               " multiprocessors with " + std::to_string(facts.shared_bytes) +
               " bytes of shared memory";
    if (facts.resident_blocks < facts.multiprocessors) {
      obstacle += ", which hold " + std::to_string(facts.resident_blocks) + " blocks at once";
    }
  }
  FASTRNN_EXPECTS(!forced || obstacle.empty(), "algorithm is persistent, but " + obstacle);
  if (!obstacle.empty()) {
    choice.reason = obstacle;
    return choice;
  }
  const Candidate& best =
      cheapest.TakesClusters(desc.algorithm) ? *cheapest.clustered : *cheapest.plain;
  choice.reason = "persistent " + Format(best.cost.step_us) + " us a step and " +
                  Format(best.cost.total_us) + " us in all, stepwise " +
                  Format(choice.cost.step_us) + " and " + Format(choice.cost.total_us) +
                  cheapest.Reason() + (best.plan.tagged() ? "; blocks exchange tagged words" : "");
  if (!forced && best.cost.total_us >= choice.cost.total_us) return choice;
  choice.persistent = true;
  choice.plan = best.plan;
  choice.cost = best.cost;
  return choice;
}

}  // namespace cuda
}  // namespace fastrnn
