#include "plan.h"

#include <cstdio>
#include <iterator>
#include <optional>

#include "../error.h"

namespace fastrnn {
namespace cuda {
namespace {

// A pass over a layer on a device.
struct Problem {
  Pass pass;
  const LayerDesc& desc;
  const DeviceFacts& facts;
  bool tensor_cores;

  Problem(Pass of_pass, const LayerDesc& of_desc, bool tf32, const DeviceFacts& of_facts)
      : pass(of_pass),
        desc(of_desc),
        facts(of_facts),
        tensor_cores(of_desc.dtype != DType::kFloat32 || tf32) {}

  int gates() const { return desc.cell().gates; }
  Maths math() const {
    return desc.dtype != DType::kFloat32 ? k16Bit : tensor_cores ? kTf32 : kIeee;
  }
  // How many of the directions can run at once.
  int64_t directions_at_once() const {
    return pass == Pass::kForward || BackwardIsOneChunk(desc) ? desc.directions : 1;
  }
  // The numbers that a step exchanges for each row of the batch.
  int64_t numbers() const { return pass == Pass::kForward ? desc.hidden : gates() * desc.hidden; }
};

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

ProductShape ShapeOf(const Problem& problem, const PersistentPlan& plan) {
  const Instance& kernel = plan.kernel();
  const int64_t values = kSliceBytes / SizeOf(problem.desc.dtype);
  const int64_t slices = CeilDiv(CeilDiv(problem.numbers(), values), plan.tile_parts());
  return {
      kernel.row_tiles,
      kernel.batch_tiles,
      static_cast<int>(slices),
      problem.tensor_cores,
      RegisterSlices(problem.tensor_cores, kernel.row_tiles, kernel.batch_tiles, kernel.streams),
      plan.shared_slices};
}

ScatterShape ScatterShapeOf(const Problem& problem, const PersistentPlan& plan) {
  return {plan.kernel().batch_tiles,
          ScatterSlices(problem.gates(), static_cast<size_t>(SizeOf(problem.desc.dtype))),
          plan.blocks, problem.tensor_cores};
}

// ---- what the model assumes ---------------------------------------------------------------------
//
// None of these has been measured with these kernels; each comment names the source. Measurements
// in the facts replace four of them.

// From a block's release of a flag to another block's acquire, both through L2: two trips of about
// 0.3 µs (published microbenchmarks of A100 and H100), and a poll in between.
constexpr double kExchangeUs = 0.9;
// Stores into another block's shared memory and a barrier of the cluster: about 200 clocks each.
constexpr double kClusterExchangeUs = 0.3;
// The share of that which tagged words take: they need no flag, and so one trip fewer. Simulated
// (GPGPU-Sim, 16 blocks of bench/synchronization.cu: 544 clocks of about 970), never measured.
constexpr double kTaggedShare = 544.0 / 970.0;
// They are loaded until they are there: half a load too often, on average. They have 4 bytes for
// every number, and only those of existing rows are loaded.
constexpr double kTaggedLoads = 1.5;
// A stepwise step: on the device, two dependent kernels without work; on the host, issuing cuBLAS's
// product (about 3 µs) and the cells (about 2 µs). Haste, which is stepwise, needs 18 µs for a step
// that reads 4.7 MB (FlashRNN's report, H = 768).
constexpr double kStepwiseUs = 2.5;
constexpr double kStepwiseHostUs = 5.0;
// Zeroing the flags and starting a cooperative grid.
constexpr double kLaunchUs = 8.0;
// Bytes per clock that a multiprocessor reads from L2, if all read (an H100 has 5.5 TB/s for 132
// multiprocessors at 1.7 GHz) and if few do; and from its shared memory, 32 banks of 4 bytes.
constexpr double kL2Bytes = 24.0;
constexpr double kL2BytesAlone = 64.0;
constexpr double kSharedBytes = 128.0;
// The share of its bounds (multiply-adds and L2 bytes) that a small product of cuBLAS reaches, and
// the share of the memory bandwidth that reading reaches.
constexpr double kGemmShare = 0.5;
constexpr double kMemoryShare = 0.8;
// The share of the L2 cache that the weights keep while a step's other arrays pass through it.
// Weights that do not fit always miss: an LRU cache evicts each one before the next step reads it.
constexpr double kL2Share = 0.8;

// Clocks, and bytes of device memory, per microsecond: nominal figures of the architecture's
// largest GPU. Asking the driver for the clock rate would take a millisecond.
double ClocksPerUs(int capability) {
  if (capability >= 90) return 1700.0;
  if (capability >= 86) return capability == 89 ? 2000.0 : 1700.0;
  return capability == 80 ? 1400.0 : 1550.0;
}
double MemoryBytesPerUs(int capability) {
  if (capability >= 90) return 3.3e6;
  if (capability >= 86) return capability == 89 ? 3e5 : 9e5;
  return capability == 80 ? 1.5e6 : 3e5;
}

// Multiply-adds of a multiprocessor per clock, from the architectures' whitepapers. sm_90's is what
// mma.sync reaches, half of wgmma.
double ProductsPerClock(DType dtype, bool tensor_cores, int capability) {
  if (!tensor_cores) return capability >= 86 ? 128.0 : 64.0;
  const bool float32 = dtype == DType::kFloat32;
  if (capability < 80) return 512.0;
  if (capability == 80 || capability >= 90) return float32 ? 512.0 : 1024.0;
  return float32 ? 256.0 : 512.0;
}

double MeasuredOr(double measured, double nominal) { return measured > 0.0 ? measured : nominal; }

// ---- rates of the device ------------------------------------------------------------------------

double ProductsPerUs(const Problem& problem) {
  const DeviceFacts& facts = problem.facts;
  return MeasuredOr(facts.products_per_us,
                    ProductsPerClock(problem.desc.dtype, problem.tensor_cores, facts.capability) *
                        ClocksPerUs(facts.capability));
}
double ExchangeUs(const DeviceFacts& facts) { return MeasuredOr(facts.exchange_us, kExchangeUs); }
double HostUs(const DeviceFacts& facts) { return MeasuredOr(facts.host_us, kStepwiseHostUs); }

// With a measured peak, the cost is a lower bound instead of an estimate.
double GemmShare(const DeviceFacts& facts) {
  return facts.products_per_us > 0.0 ? 1.0 : kGemmShare;
}

// The time to read bytes from device memory.
double MemoryUs(const DeviceFacts& facts, double bytes) {
  const double nominal = kMemoryShare * MemoryBytesPerUs(facts.capability);
  return bytes / MeasuredOr(facts.memory_bytes_per_us, nominal);
}
// The time to read them in every step: none if the L2 cache keeps them.
double RepeatedMemoryUs(const DeviceFacts& facts, double bytes) {
  return bytes <= kL2Share * static_cast<double>(facts.l2_bytes) ? 0.0 : MemoryUs(facts, bytes);
}

// ---- persistent kernels -------------------------------------------------------------------------

bool SumsThroughL2(const PersistentPlan& plan) {
  return plan.kernel().reduction == Reduction::kThroughL2;
}

// What a block does in a step.
struct Work {
  double products;      // multiply-adds
  double l2_bytes;      // exchanged, read or written
  double shared_bytes;  // read or written for the product
};

Work ScatterWork(const Problem& problem, const PersistentPlan& plan) {
  const ScatterShape shape = ScatterShapeOf(problem, plan);
  const double k_bytes = static_cast<double>(shape.slices) * kSliceBytes;
  const double k = k_bytes / static_cast<double>(SizeOf(problem.desc.dtype));
  const auto rows = static_cast<double>(std::min<int64_t>(shape.columns(), problem.desc.batch));
  const double units = static_cast<double>(kTileRows) * shape.tiles;
  // A block writes its sums for all units, and reads all blocks' sums for its own, both of existing
  // rows only. Each warp reads the gradients once, or once for each of its tiles.
  const int readings = shape.keeps_gradients() ? kProductWarps : shape.tiles;
  return {k * units * shape.columns(), 2.0 * sizeof(float) * units * rows,
          16.0 * static_cast<double>(shape.shared_words()) + k_bytes * shape.columns() * readings};
}

Work WorkOf(const Problem& problem, const PersistentPlan& plan) {
  if (plan.scatters()) return ScatterWork(problem, plan);
  const ProductShape shape = ShapeOf(problem, plan);
  const double k_bytes = static_cast<double>(shape.slices) * kSliceBytes;
  const double k = k_bytes / static_cast<double>(SizeOf(problem.desc.dtype));
  const double sums = static_cast<double>(shape.rows()) * shape.columns();
  // A tile's sums are written once, and each block reads its part of all of them. Before that, the
  // same happens among the warps, in shared memory.
  const double sum_bytes = 2.0 * sizeof(float) * sums;
  const double exchanged =
      plan.tagged()
          ? kTaggedLoads * 4.0 * k *
                static_cast<double>(std::min<int64_t>(shape.columns(), problem.desc.batch))
          : k_bytes * shape.columns();
  return {k * sums, exchanged + (SumsThroughL2(plan) ? sum_bytes : 0.0),
          16.0 * static_cast<double>(shape.shared_words()) + sum_bytes * shape.active_warps()};
}

Cost CostOf(const Problem& problem, const PersistentPlan& plan) {
  const LayerDesc& desc = problem.desc;
  const Work work = WorkOf(problem, plan);
  const double clocks_per_us = ClocksPerUs(problem.facts.capability);
  const double blocks = static_cast<double>(plan.blocks) * plan.groups;
  const double resident = blocks * plan.directions;
  const double clocks_per_l2_byte =
      std::max(1.0 / kL2BytesAlone, resident / (kL2Bytes * problem.facts.multiprocessors));
  const double streamed_bytes = 16.0 * static_cast<double>(plan.streamed_words);
  Cost cost;
  cost.flops = 2.0 * work.products * blocks;
  cost.l2_bytes = (work.l2_bytes + streamed_bytes) * blocks;
  cost.memory_bytes = static_cast<double>(desc.gate_rows() * desc.hidden * SizeOf(desc.dtype));
  cost.synchronizations = plan.tile_parts() > 1 ? 2 : 1;
  cost.step_us = (plan.tagged() ? kTaggedShare : 1.0) * ExchangeUs(problem.facts) +
                 work.l2_bytes * clocks_per_l2_byte / clocks_per_us +
                 work.products / ProductsPerUs(problem) +
                 work.shared_bytes / (kSharedBytes * clocks_per_us);
  // Streaming adds to the rest: the slice that is prefetched hides only the latency.
  cost.step_us += std::max(streamed_bytes * clocks_per_l2_byte / clocks_per_us,
                           RepeatedMemoryUs(problem.facts, streamed_bytes * resident));
  if (SumsThroughL2(plan)) cost.step_us += ExchangeUs(problem.facts);
  if (plan.cluster() > 1) cost.step_us += kClusterExchangeUs;
  const double load_us = MemoryUs(problem.facts, cost.memory_bytes);
  const double launches = static_cast<double>(plan.launches) *
                          static_cast<double>(CeilDiv(desc.directions, plan.directions));
  cost.total_us = launches * (kLaunchUs + load_us + static_cast<double>(desc.steps) * cost.step_us);
  return cost;
}

Cost StepwiseCost(const Problem& problem) {
  const LayerDesc& desc = problem.desc;
  const auto N = static_cast<double>(desc.batch);
  const auto weights = static_cast<double>(desc.gate_rows() * desc.hidden);
  Cost cost;
  cost.flops = 2.0 * N * weights;
  cost.l2_bytes = weights * static_cast<double>(SizeOf(desc.dtype));
  cost.memory_bytes = cost.l2_bytes;
  cost.synchronizations = 2;
  const double share = GemmShare(problem.facts);
  const double compute_us =
      N * weights / (share * ProductsPerUs(problem) * problem.facts.multiprocessors);
  const double read_us =
      std::max(RepeatedMemoryUs(problem.facts, cost.l2_bytes),
               cost.l2_bytes / (share * kL2Bytes * ClocksPerUs(problem.facts.capability) *
                                problem.facts.multiprocessors));
  // Directions that run at once hide the launches of each other, but not the work.
  const auto at_once = static_cast<double>(problem.directions_at_once());
  const double work_us = at_once * std::max(compute_us, read_us);
  const double host_us = at_once * HostUs(problem.facts);
  cost.step_us = std::max(host_us, kStepwiseUs + work_us) / at_once;
  cost.total_us = static_cast<double>(desc.steps * desc.directions) * cost.step_us;
  return cost;
}

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
  if (problem.pass == Pass::kForward && problem.desc.clip.clips()) {
    return "persistent kernels do not clip the cell state";
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
      const Candidate found{plan, CostOf(problem, plan)};
      std::optional<Candidate>& best = plan.cluster() > 1 ? cheapest.clustered : cheapest.plain;
      if (!best || found.IsBetterThan(*best, wanted)) best = found;
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
                  cheapest.Reason() + (best.plan.tagged() ? "; blocks exchange tagged words" : "");
  if (!forced && best.cost.total_us >= choice.cost.total_us) return choice;
  choice.persistent = true;
  choice.plan = best.plan;
  choice.cost = best.cost;
  return choice;
}

}  // namespace cuda
}  // namespace fastrnn
