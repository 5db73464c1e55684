#include "cost.h"

#include <algorithm>

#include "step_counts.h"

namespace fastrnn {
namespace cuda {
namespace {

// ---- what the model assumes ---------------------------------------------------------------------
//
// None of these has been measured with these kernels; each comment names the source. Measurements
// in the facts replace four of them. What a warp executes is counted in machine code
// (step_counts.h), for sm_90; other GPUs are taken to execute the same.

// From a block's release of a flag to another block's acquire, both through L2: two trips of about
// 0.3 µs (published microbenchmarks of A100 and H100), and a poll in between.
constexpr double kExchangeUs = 0.9;
// Stores into another block's shared memory and the wait for their bytes: about 200 clocks each.
constexpr double kClusterExchangeUs = 0.3;
// Clocks of a load from L2 (as in tests/gpu/step_path.py, by which latencies are counted).
constexpr double kL2Clocks = 270.0;
// The share that tagged words take of an exchange with flags and the load of what it covers: there
// is one trip fewer. Simulated (GPGPU-Sim, 16 blocks of bench/limits/synchronization.cu: 544 clocks
// of about 970), never measured.
constexpr double kTaggedShare = 544.0 / 970.0;
// They are loaded until they are there: half a load too often, on average. They have 4 bytes for
// every number, and only those of existing rows are loaded.
constexpr double kTaggedLoads = 1.5;
// Two dependent launches without work, on the device: a stepwise step's, or a persistent kernel's
// and that of the zeros before it.
constexpr double kTwoLaunchesUs = 2.5;
// On the host, issuing a kernel or zeros, a product of cuBLAS, and what a cooperative launch takes
// longer: guesses. Haste, which is stepwise, needs 18 µs for a step that reads 4.7 MB (FlashRNN's
// report, H = 768).
constexpr double kHostKernelUs = 2.0;
constexpr double kHostProductUs = 3.0;
constexpr double kHostCooperativeUs = 1.4;
constexpr double kHostStepUs = kHostProductUs + kHostKernelUs;
// Instructions to load a weight before the first step, as they were counted in machine code (LSTM,
// sm_90): by itself, and as one of 16 bytes.
constexpr double kLoadInstructions = 21.0;
constexpr double kLoad16Instructions = 25.0;
// Bytes per clock that a multiprocessor reads from L2, if all read (an H100 has 5.5 TB/s for 132
// multiprocessors at 1.7 GHz) and if few do; and from its shared memory, 32 banks of 4 bytes.
constexpr double kL2Bytes = 24.0;
constexpr double kL2BytesAlone = 64.0;
constexpr double kSharedBytes = 128.0;
// A multiprocessor has four schedulers, each of which issues an instruction per clock.
constexpr double kWarpsOfScheduler = kProductWarps / 4.0;
// The share of its bounds (multiply-adds and L2 bytes) that a small product of cuBLAS reaches, and
// the share of the memory bandwidth that reading reaches.
constexpr double kGemmShare = 0.5;
constexpr double kMemoryShare = 0.8;
// A stepwise step's dependent instructions, in clocks: a warp of cuBLAS's product waits as ours for
// two tensor-core products a slice (IEEE float32: 16 multiply-adds), if up to four warps share K;
// and the cells take about as long as those of a persistent kernel.
constexpr double kSliceClocks = 66.0;
constexpr double kGemmParts = 4.0;
constexpr double kCellClocks = 300.0;
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
// The host's time for a stepwise step, and for other things that nominally take as long as said.
double HostUs(const DeviceFacts& facts, double nominal = kHostStepUs) {
  return nominal * MeasuredOr(facts.host_us, kHostStepUs) / kHostStepUs;
}

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

// ---- what a block does in a step ----------------------------------------------------------------

bool SumsThroughL2(const PersistentPlan& plan) {
  return plan.kernel().reduction == Reduction::kThroughL2;
}

struct Work {
  double weights;       // on the chip or streamed
  double products;      // multiply-adds
  double l2_bytes;      // exchanged, read or written
  double shared_bytes;  // read from shared memory for the product
  double sum_bytes;     // written and read there to add up the sums of the warps
  int parts;            // of a warp that has the most: slices, or tiles of a scatter kernel
  int trips;            // to L2 that a warp waits for, beyond the first
};

Work ScatterWork(const Problem& problem, const PersistentPlan& plan) {
  const ScatterShape shape = ScatterShapeOf(problem, plan);
  const double k_bytes = static_cast<double>(shape.slices) * kSliceBytes;
  const double k = k_bytes / static_cast<double>(problem.value_bytes());
  const auto rows = static_cast<double>(std::min<int64_t>(shape.columns(), problem.desc.batch));
  const double units = static_cast<double>(kTileRows) * shape.tiles;
  // A block writes its sums for all units, and reads all blocks' sums for its own, both of existing
  // rows only. Each warp reads the gradients once, or once for each of its tiles.
  const int readings = shape.keeps_gradients() ? kProductWarps : shape.tiles;
  // A warp has as many tiles as other blocks whose sums it adds up, of which it loads a few at
  // once.
  const auto tiles = static_cast<int>(CeilDiv(shape.tiles, kProductWarps));
  return {k * units,
          k * units * shape.columns(),
          2.0 * sizeof(float) * units * rows,
          16.0 * static_cast<double>(shape.shared_words()) + k_bytes * shape.columns() * readings,
          2.0 * sizeof(float) * kTileRows * rows * kProductWarps,
          tiles,
          static_cast<int>(CeilDiv(tiles, 8 / shape.batch_tiles)) - 1};
}

// Trips to L2 for a warp's slices on the tensor cores, beyond the first. How many are in flight at
// once is as TileProduct's kAhead, of a thread with two cells. A warp that keeps none in registers
// has one, which its slices' latency includes; IEEE float32 has the next in flight.
int TripsOf(const ProductShape& shape) {
  if (shape.register_slices == 0) return 0;
  const int tiles = shape.row_tiles > 2 ? 4 : 8;
  const int most = std::max(shape.register_slices, 4);
  const int ahead = std::max(1, std::min(tiles / shape.batch_tiles, most));
  const int streamed = shape.streamed_slices_per_warp();
  return static_cast<int>(CeilDiv(shape.slices_per_warp() - streamed, ahead) +
                          CeilDiv(streamed, ahead)) -
         1;
}

Work WorkOf(const Problem& problem, const PersistentPlan& plan) {
  if (plan.scatters()) return ScatterWork(problem, plan);
  const ProductShape shape = ShapeOf(problem, plan);
  const double k_bytes = static_cast<double>(shape.slices) * kSliceBytes;
  const double k = k_bytes / static_cast<double>(problem.value_bytes());
  const double sums = static_cast<double>(shape.sums());
  // A tile's sums are written once, and each block reads its part of all of them. Before that, the
  // same happens among the warps, in shared memory; the parts of those without slices are zeros.
  const double sum_bytes = 2.0 * sizeof(float) * sums;
  const double exchanged =
      plan.tagged()
          ? kTaggedLoads * 4.0 * k *
                static_cast<double>(std::min<int64_t>(shape.columns(), problem.desc.batch))
          : k_bytes * shape.columns();
  return {k * shape.rows(),
          k * sums,
          exchanged + (SumsThroughL2(plan) ? sum_bytes : 0.0),
          16.0 * static_cast<double>(shape.shared_words()),
          sum_bytes * kProductWarps,
          shape.slices_per_warp(),
          TripsOf(shape)};
}

// ---- the time of a step -------------------------------------------------------------------------

// From an exchange to the next, without the time that bytes take through L2. The product of all
// parts takes as long as one of the warps with its dependent instructions, or as long as those of
// all warps of a scheduler take to be issued, the multiply-adds, or the bytes from shared memory.
// What comes before and after takes as long as the dependent instructions or their issue, and the
// sums of all warps besides.
double PathUs(const Problem& problem, const PersistentPlan& plan, const Work& work) {
  const PathCounts counts = CountsOf(plan.kernel(), problem.gates(), problem.math());
  const double clocks_per_us = ClocksPerUs(problem.facts.capability);
  const double others =
      std::max<double>(counts.latency - counts.part_latency,
                       kWarpsOfScheduler * (counts.instructions - counts.part_instructions));
  const double product = std::max({work.parts * counts.part_latency + work.trips * kL2Clocks,
                                   work.parts * counts.part_instructions * kWarpsOfScheduler,
                                   work.products / ProductsPerUs(problem) * clocks_per_us,
                                   work.shared_bytes / kSharedBytes});
  return (others + product + work.sum_bytes / kSharedBytes) / clocks_per_us;
}

// All that blocks wait for in a step.
double ExchangesUs(const Problem& problem, const PersistentPlan& plan) {
  const double once = ExchangeUs(problem.facts);
  if (plan.tagged()) {
    return kTaggedShare * (once + kL2Clocks / ClocksPerUs(problem.facts.capability));
  }
  return once + (SumsThroughL2(plan) ? once : 0.0) + (plan.cluster() > 1 ? kClusterExchangeUs : 0);
}

// ---- what comes before the first step -----------------------------------------------------------

// The time to bring a block's weights to where they are multiplied.
double LoadUs(const Problem& problem, const Work& work, double memory_bytes) {
  const double values = 16.0 / static_cast<double>(problem.value_bytes());
  const bool aligned =
      problem.pass == Pass::kForward && problem.desc.hidden % static_cast<int64_t>(values) == 0;
  const double instructions = aligned ? kLoad16Instructions / values : kLoadInstructions;
  const double of_scheduler = work.weights * instructions / kProductThreads * kWarpsOfScheduler;
  return std::max(MemoryUs(problem.facts, memory_bytes),
                  of_scheduler / ClocksPerUs(problem.facts.capability));
}

double LaunchUs(const DeviceFacts& facts) {
  return kTwoLaunchesUs + HostUs(facts, 2.0 * kHostKernelUs + kHostCooperativeUs);
}

}  // namespace

Cost PersistentCost(const Problem& problem, const PersistentPlan& plan) {
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
  cost.memory_bytes = static_cast<double>(desc.gate_rows() * desc.hidden * problem.value_bytes());
  cost.synchronizations = plan.tile_parts() > 1 ? 2 : 1;
  cost.path_us = PathUs(problem, plan, work);
  cost.step_us = ExchangesUs(problem, plan) + cost.path_us +
                 work.l2_bytes * clocks_per_l2_byte / clocks_per_us;
  // Streaming adds to the rest: the slice that is prefetched hides only the latency.
  cost.step_us += std::max(streamed_bytes * clocks_per_l2_byte / clocks_per_us,
                           RepeatedMemoryUs(problem.facts, streamed_bytes * resident));
  const double before_us = LaunchUs(problem.facts) + LoadUs(problem, work, cost.memory_bytes);
  const double launches = static_cast<double>(plan.launches) *
                          static_cast<double>(CeilDiv(desc.directions, plan.directions));
  cost.total_us = launches * (before_us + static_cast<double>(desc.steps) * cost.step_us);
  return cost;
}

Cost StepwiseCost(const Problem& problem) {
  const LayerDesc& desc = problem.desc;
  const auto N = static_cast<double>(desc.batch);
  const auto weights =
      static_cast<double>(desc.gate_rows() * desc.outputs() + desc.projection * desc.hidden);
  const double clocks_per_us = ClocksPerUs(problem.facts.capability);
  // A projection is a second product, with a second kernel after it.
  const int products = desc.projected() ? 2 : 1;
  Cost cost;
  cost.flops = 2.0 * N * weights;
  cost.l2_bytes = weights * static_cast<double>(problem.value_bytes());
  cost.memory_bytes = cost.l2_bytes;
  cost.synchronizations = 2 * products;
  const double share = GemmShare(problem.facts);
  const double compute_us =
      N * weights / (share * ProductsPerUs(problem) * problem.facts.multiprocessors);
  const double read_us =
      std::max(RepeatedMemoryUs(problem.facts, cost.l2_bytes),
               cost.l2_bytes / (share * kL2Bytes * clocks_per_us * problem.facts.multiprocessors));
  // The product and the cells each wait for their first load.
  const double slices =
      static_cast<double>((problem.numbers() + desc.projection) * problem.value_bytes()) /
      static_cast<double>(kSliceBytes);
  const double chain = slices / kGemmParts * kSliceClocks;
  cost.path_us = products * (2.0 * kL2Clocks + kCellClocks) / clocks_per_us;
  // Directions that run at once hide the launches of each other, but not the work.
  const auto at_once = static_cast<double>(problem.directions_at_once());
  const double work_us = std::max(chain / clocks_per_us, at_once * std::max(compute_us, read_us));
  const double host_us = at_once * products * HostUs(problem.facts);
  cost.step_us = std::max(host_us, products * kTwoLaunchesUs + cost.path_us + work_us) / at_once;
  cost.total_us = static_cast<double>(desc.steps * desc.directions) * cost.step_us;
  return cost;
}

}  // namespace cuda
}  // namespace fastrnn
