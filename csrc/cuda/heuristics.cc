#include "heuristics.h"

#include <algorithm>
#include <cstdio>
#include <optional>
#include <vector>

#include "../error.h"
#include "costs.h"
#include "problem.h"

namespace fastrnn {
namespace cuda {
namespace {

// ---- obstacles ----------------------------------------------------------------------------------

// The compute capability that kernels have: the device's, or what they are compiled for.
int CapabilityOfKernels(const DeviceFacts& facts) {
  return facts.code_capability > 0 ? std::min(facts.capability, facts.code_capability)
                                   : facts.capability;
}

// Why no persistent kernel can run, or unless it is forced to should, or nothing.
std::string Obstacle(const Problem& problem, bool forced) {
  const DeviceFacts& facts = problem.facts;
  const int kernels = CapabilityOfKernels(facts);
  const std::string compiled = kernels == facts.capability ? ""
                                                           : ", and these are compiled for " +
                                                                 std::to_string(kernels / 10) +
                                                                 "." + std::to_string(kernels % 10);
  if (problem.desc.steps == 1 && !forced) {
    return "one step has no use for weights that stay on the chip";
  }
  if (!facts.cooperative) return "the device has no cooperative launches";
  if (kernels < 75) return "persistent kernels need compute capability 7.5" + compiled;
  if (problem.tensor_cores && problem.desc.dtype != DType::kFloat16 && kernels < 80) {
    return "persistent kernels need compute capability 8.0 for bfloat16 and TF32" + compiled;
  }
  return "";
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
  if (problem.pass == Pass::kForward) TakeBiases(problem.gates(), plan.units, &carver);
  if (plan.cluster > 1) TakeClusterSums(shape, &carver);
  return carver.bytes();
}

// A plan for each kernel that there is, not yet cut; of those that stream, shared_chunks is 0.
std::vector<PersistentPlan> AllTiles(const Problem& problem) {
  std::vector<PersistentPlan> plans;
  const TileTable table = TilesOf(problem.pass, problem.gates() == 1);
  const auto add = [&](const Tiles& tiles, int batch_tiles, bool streams) {
    PersistentPlan plan;
    plan.row_tiles = tiles.row_tiles;
    plan.batch_tiles = batch_tiles;
    plan.split = tiles.split;
    if (streams) plan.shared_chunks = 0;
    plans.push_back(plan);
    plan.cluster = kCluster;
    if (problem.facts.capability == 90 && CapabilityOfKernels(problem.facts) == 90 &&
        HasClusterForm(tiles.split)) {
      plans.push_back(plan);
    }
  };
  for (size_t i = 0; i < table.count; ++i) {
    const Tiles& tiles = table.tiles[i];
    for (int batch_tiles = 1; batch_tiles <= 4; batch_tiles *= 2) {
      if (batch_tiles <= tiles.most_batch_tiles) add(tiles, batch_tiles, false);
      if (batch_tiles <= tiles.most_streamed) add(tiles, batch_tiles, true);
    }
  }
  return plans;
}

// Has a plan that streams keep as much in shared memory as the device has of it, or as was asked
// for. False where even nothing is too much, or where nothing is left to stream.
bool CutStream(const Problem& problem, PersistentPlan* plan) {
  const int wanted = problem.desc.algorithm.shared_chunks;
  plan->shared_chunks = 0;
  const size_t least = SharedBytes(problem, *plan);
  if (least > problem.facts.shared_bytes) return false;
  plan->shared_chunks = 1;
  const size_t chunk = SharedBytes(problem, *plan) - least;
  const size_t most = chunk == 0 ? 0 : (problem.facts.shared_bytes - least) / chunk;
  plan->shared_chunks = wanted < 0 ? static_cast<int>(most) : wanted;
  const ProductShape shape = ShapeOf(problem, *plan);
  plan->streamed_chunks = shape.streamed_chunks_per_warp();
  plan->streamed_words = shape.streamed_words();
  return plan->streamed_chunks > 0 || wanted >= 0;
}

// Cuts the problem for the tiles; false where they do not fit the device.
bool Cut(const Problem& problem, int directions, int groups, PersistentPlan* plan) {
  const int64_t H = problem.desc.hidden, rows = kTileRows * plan->row_tiles;
  if (H > (1 << 20) || problem.desc.batch > (1 << 20)) return false;  // Far from fitting.
  const bool forward = problem.pass == Pass::kForward;
  const int parts = plan->scatters() ? 1 : plan->split;
  plan->units = static_cast<int>(rows / (forward ? problem.gates() : parts));
  const int64_t blocks = forward ? CeilDiv(H, plan->units) : CeilDiv(H, rows) * parts;
  plan->blocks = static_cast<int>(CeilDiv(blocks, plan->cluster) * plan->cluster);
  if (plan->streams() && !CutStream(problem, plan)) return false;
  plan->shared_bytes = SharedBytes(problem, *plan);
  plan->directions = directions;
  const DeviceFacts& facts = problem.facts;
  const int usable =
      std::min(facts.multiprocessors,
               plan->cluster > 1 ? facts.cluster_multiprocessors : facts.resident_blocks);
  const int64_t room = usable / (plan->blocks * directions);
  const int64_t all = CeilDiv(problem.desc.batch, kTileBatch * plan->batch_tiles);
  plan->groups = static_cast<int>(std::min(groups > 0 ? groups : room, all));
  if (plan->groups == 0 || plan->groups > room) return false;
  if (plan->shared_bytes > facts.shared_bytes) return false;
  plan->launches = static_cast<int>(CeilDiv(all, plan->groups));
  return true;
}

// ---- the choice ---------------------------------------------------------------------------------

// The plan has been cut.
bool IsWanted(const Algorithm& wanted, Pass pass, const PersistentPlan& plan) {
  const auto agrees = [](int want, int have) { return want == 0 || want == have; };
  if (!agrees(wanted.batch_tiles, plan.batch_tiles)) return false;
  if (wanted.shared_chunks >= 0 && !plan.streams()) return false;
  const bool either = wanted.cluster < 0 || !HasClusterForm(plan.split);
  if (!either && (wanted.cluster > 0) != (plan.cluster > 1)) return false;
  if (pass == Pass::kForward) return agrees(wanted.row_tiles, plan.row_tiles);
  return agrees(wanted.backward_row_tiles, plan.row_tiles) &&
         agrees(wanted.split, plan.parts_of_k());
}

std::string Format(double us) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", us);
  return text;
}

// A grid in clusters is taken where it costs at least this share less than the best one without:
// it leaves some multiprocessors idle (4 of an H100's 132), and what the model says of it has not
// been measured, so that a tie goes to the simpler launch. Which of the two is taken has then to be
// cheaper than stepwise.
constexpr double kClusterGain = 0.05;

struct Candidate {
  PersistentPlan plan;
  Cost cost;
};

// The cheapest of the wanted plans that fit, without clusters and with.
struct Cheapest {
  std::optional<Candidate> plain, clustered;

  // Whether the one with clusters is to be taken. Where they are asked for, they need not gain.
  bool TakesClusters(const Algorithm& wanted) const {
    if (!plain || !clustered) return clustered.has_value();
    const double gain = wanted.cluster > 0 ? 0.0 : kClusterGain;
    return clustered->cost.total_us <= (1.0 - gain) * plain->cost.total_us;
  }

  // Of the clusters, where there was the choice.
  std::string Reason() const {
    if (!plain || !clustered) return "";
    return "; with clusters " + Format(clustered->cost.total_us) + " us in all, without " +
           Format(plain->cost.total_us);
  }
};

Cheapest FindCheapest(const Problem& problem) {
  const Algorithm& wanted = problem.desc.algorithm;
  Cheapest cheapest;
  for (PersistentPlan plan : AllTiles(problem)) {
    const int64_t most = problem.directions_at_once();
    for (int directions = 1; directions <= most; ++directions) {
      if (wanted.directions > 0 && directions != std::min<int64_t>(wanted.directions, most)) {
        continue;
      }
      if (!Cut(problem, directions, wanted.groups, &plan)) continue;
      if (!IsWanted(wanted, problem.pass, plan)) continue;
      const Cost cost = CostOf(problem, plan);
      std::optional<Candidate>& best = plan.cluster > 1 ? cheapest.clustered : cheapest.plain;
      if (!best || cost.total_us < best->cost.total_us) best = Candidate{plan, cost};
    }
  }
  return cheapest;
}

constexpr int kTf32Capability = 80;

}  // namespace

bool AllowsTf32(bool wanted, const DeviceFacts& facts) {
  return wanted && facts.capability >= kTf32Capability;
}

Choice Choose(Pass pass, const LayerDesc& desc, bool tf32, const DeviceFacts& facts) {
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
                  cheapest.Reason();
  if (!forced && best.cost.total_us >= choice.cost.total_us) return choice;
  choice.persistent = true;
  choice.plan = best.plan;
  choice.cost = best.cost;
  return choice;
}

}  // namespace cuda
}  // namespace fastrnn
