#include "costs.h"

#include <algorithm>

namespace fastrnn {
namespace cuda {
namespace {

// ---- what the model assumes ---------------------------------------------------------------------
//
// None of these has been measured with these kernels yet; each says where it comes from. Four of
// them stand back where the facts have a measurement.

// From a block's release of a flag to another block's acquire, both through L2: two trips of about
// 0.3 µs (published microbenchmarks of A100 and H100) and the poll that falls between.
constexpr double kExchangeUs = 0.9;
// Stores into another block's shared memory and a barrier of the cluster: about 200 clocks each.
constexpr double kClusterExchangeUs = 0.3;
// A stepwise step: two dependent kernels without work on the device, and what the host takes to
// issue them, cuBLAS's product (about 3 µs) and the cells (about 2). Haste, which is stepwise,
// needs 18 µs where a step reads 4.7 MB (FlashRNN's report, H = 768).
constexpr double kStepwiseUs = 2.5;
constexpr double kStepwiseHostUs = 5.0;
// Zeroing the flags and starting a cooperative grid.
constexpr double kLaunchUs = 8.0;
// Bytes in a clock that a multiprocessor reads from L2 when all do (an H100 has 5.5 TB/s for 132
// multiprocessors at 1.7 GHz), and when few do; and from its shared memory, 32 banks of 4 bytes.
constexpr double kL2Bytes = 24.0;
constexpr double kL2BytesAlone = 64.0;
constexpr double kSharedBytes = 128.0;
// The share of its bounds, products and bytes from L2, that a small product of cuBLAS's reaches,
// and what anything does of device memory's bandwidth.
constexpr double kGemmShare = 0.5;
constexpr double kMemoryShare = 0.8;
// The share of the L2 cache that weights keep while a step's other arrays pass through it. What is
// read round after round and does not fit an LRU cache is always gone.
constexpr double kL2Share = 0.8;

// Clocks in a microsecond, and bytes of device memory: nominal figures of the architecture's
// largest GPU. To ask the driver for clocks takes it a millisecond.
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

// Multiplications with an addition, of a multiprocessor in a clock; from the whitepapers of the
// architectures. sm_90's is what mma.sync reaches, half of wgmma.
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

// Who measures the peak wants to know what cannot be beaten, and not what is likely.
double GemmShare(const DeviceFacts& facts) {
  return facts.products_per_us > 0.0 ? 1.0 : kGemmShare;
}

// Reading so many bytes from device memory.
double MemoryUs(const DeviceFacts& facts, double bytes) {
  const double nominal = kMemoryShare * MemoryBytesPerUs(facts.capability);
  return bytes / MeasuredOr(facts.memory_bytes_per_us, nominal);
}
// Reading so many in every step: nothing where the L2 cache keeps them.
double RepeatedMemoryUs(const DeviceFacts& facts, double bytes) {
  return bytes <= kL2Share * static_cast<double>(facts.l2_bytes) ? 0.0 : MemoryUs(facts, bytes);
}

// ---- persistent kernels -------------------------------------------------------------------------

bool SplitsThroughL2(const PersistentPlan& plan) { return plan.split > 1 && plan.cluster == 1; }

// What a block does in a step.
struct Work {
  double products;      // multiplications with an addition
  double l2_bytes;      // of what is exchanged, read or written
  double shared_bytes;  // read or written for the product
};

Work ScatterWork(const Problem& problem, const PersistentPlan& plan) {
  const ScatterShape shape = ScatterShapeOf(problem, plan);
  const double k_bytes = static_cast<double>(shape.chunks) * kChunkBytesOfK;
  const double k = k_bytes / static_cast<double>(SizeOf(problem.desc.dtype));
  const auto rows = static_cast<double>(std::min<int64_t>(shape.columns(), problem.desc.batch));
  const double units = static_cast<double>(kTileRows) * shape.tiles;
  // A block writes its sums for all units, and reads those of all blocks for its own; there are
  // none of rows that do not exist. Each warp reads the gradients once, or for each of its tiles.
  const int readings = shape.keeps_gradients() ? kProductWarps : shape.tiles;
  return {k * units * shape.columns(), 2.0 * sizeof(float) * units * rows,
          16.0 * static_cast<double>(shape.shared_words()) + k_bytes * shape.columns() * readings};
}

Work WorkOf(const Problem& problem, const PersistentPlan& plan) {
  if (plan.scatters()) return ScatterWork(problem, plan);
  const ProductShape shape = ShapeOf(problem, plan);
  const double k_bytes = static_cast<double>(shape.chunks) * kChunkBytesOfK;
  const double k = k_bytes / static_cast<double>(SizeOf(problem.desc.dtype));
  const double sums = static_cast<double>(shape.rows()) * shape.columns();
  // A tile's sums are written once, and each block reads its part of all. Before that the warps'
  // have been, in shared memory.
  const double sum_bytes = 2.0 * sizeof(float) * sums;
  return {k * sums, k_bytes * shape.columns() + (SplitsThroughL2(plan) ? sum_bytes : 0.0),
          16.0 * static_cast<double>(shape.shared_words()) + sum_bytes * shape.active_warps()};
}

}  // namespace

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
  cost.synchronizations = plan.split > 1 ? 2 : 1;
  cost.step_us = ExchangeUs(problem.facts) + work.l2_bytes * clocks_per_l2_byte / clocks_per_us +
                 work.products / ProductsPerUs(problem) +
                 work.shared_bytes / (kSharedBytes * clocks_per_us);
  // What is streamed comes beside the rest, but for the latency that one chunk hides.
  cost.step_us += std::max(streamed_bytes * clocks_per_l2_byte / clocks_per_us,
                           RepeatedMemoryUs(problem.facts, streamed_bytes * resident));
  if (SplitsThroughL2(plan)) cost.step_us += ExchangeUs(problem.facts);
  if (plan.cluster > 1) cost.step_us += kClusterExchangeUs;
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
  // Directions at once hide the launches of each other, but not the work.
  const auto at_once = static_cast<double>(problem.directions_at_once());
  const double work_us = at_once * std::max(compute_us, read_us);
  const double host_us = at_once * HostUs(problem.facts);
  cost.step_us = std::max(host_us, kStepwiseUs + work_us) / at_once;
  cost.total_us = static_cast<double>(desc.steps * desc.directions) * cost.step_us;
  return cost;
}

}  // namespace cuda
}  // namespace fastrnn
