// The one contract between the bindings (MXNet operators, Python module) and the kernels: describe
// recurrent layers, get a plan, run it on arrays.
//
//   std::shared_ptr<const Plan> plan = MakePlan(layers);
//   plan->Forward(arrays);
//
// No framework and no CUDA header is included here. backend.h is the interface of the devices.
//
// T steps, N sequences in the batch, I inputs, H hidden units, P outputs, D directions (1 or 2), G
// gates, L layers; each takes the output of the one below, so above the first I is D*P. P is H
// unless an LSTM is projected (Sak et al. 2014): its h, which is also its output, is then the
// product of the cells' o * tanh(c) with another weight matrix. All arrays are dense, row-major, on
// one device, and of the layers' type, passed as void*. Gate order and arithmetic are MXNet's and
// cuDNN's:
//
//   LSTM            G = 4   i, f, g, o
//   GRU             G = 3   r, z, n; linear before reset
//   tanh, relu RNN  G = 1
//
// A layer-normalised LSTM or GRU is that of Ba et al. (2016, arXiv:1607.06450, supplementary
// material). With LN(a) = (a - mean) / sqrt(variance + 1e-5) over a row of a, its cells see
//
//   gamma_i2h * LN(W_i2h x) + b_i2h and gamma_h2h * LN(W_h2h h) + b_h2h
//
// in the place of the products with their biases, and an LSTM's output is
// o * tanh(c_gamma * LN(c) + c_beta), where c itself is carried on as it is. An LSTM normalises all
// of a row's gates together; a GRU r and z together, and n by itself.
//
// float64 layers, which are the CPU's alone, compute in float64. 16-bit types are for arrays.
// Products of 16-bit factors are summed in float32; the cells' arithmetic, c, the running gradients
// and the sums of weight gradients are float32 throughout. dx of two directions is rounded twice.
//
// Its Python interface is fastrnn.kernels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>

namespace fastrnn {

enum class Mode { kLstm, kGru, kRnnTanh, kRnnRelu };

enum class DType { kFloat32, kFloat16, kBfloat16, kFloat64 };

enum class Device { kCpu, kCuda };

// Accepts the cells' names, which are MXNet's; throws InvalidArgument for others.
Mode ParseMode(const std::string& name);

// Accepts the names of kDTypes; throws InvalidArgument for others.
DType ParseDType(const std::string& name);

// In the order of DType.
struct DTypeTraits {
  const char* name;
  int64_t size;  // bytes of one value
};
constexpr DTypeTraits kDTypes[] = {{"float32", 4}, {"float16", 2}, {"bfloat16", 2}, {"float64", 8}};

// "float32, float16, bfloat16 or float64", for messages.
std::string DTypeNames();

constexpr const char* Name(DType dtype) { return kDTypes[static_cast<int>(dtype)].name; }
constexpr int64_t SizeOf(DType dtype) { return kDTypes[static_cast<int>(dtype)].size; }

// Traits of a mode's cell; cells/cell.h describes them.
struct CellTraits {
  const char* name;
  bool relu;
  int gates;  // G
  bool has_c;
  bool split_shares;
  bool keeps_gates;
};
const CellTraits& TraitsOf(Mode mode);

// The range of an LSTM's cell state after each step, before the output is computed from it; initial
// states are not clipped. As in cuDNN and MXNet, no gradient passes through a clipped state.
template <class Real>
struct Clip {
  Real low = -std::numeric_limits<Real>::infinity();
  Real high = std::numeric_limits<Real>::infinity();
  bool nan = false;  // whether NaN becomes `low` instead of going on

  constexpr bool clips() const { return low > -kInfinity || high < kInfinity || nan; }
  // The range in the type that the cells compute in.
  template <class Other>
  constexpr Clip<Other> As() const {
    return {static_cast<Other>(low), static_cast<Other>(high), nan};
  }

 private:
  static constexpr Real kInfinity = std::numeric_limits<Real>::infinity();
};

// Zoneout (Krueger et al., arXiv:1606.01305) and dropout of the state (Gal and Ghahramani,
// arXiv:1512.05287), by their rates. In a step, each unit of h keeps its value with the rate
// zoneout_outputs, and each unit of c with zoneout_states; h is computed from c as it is without
// zoneout. What a step reads as h is 0 with the rate drop_states, in all steps of a row or in none,
// and 1 / (1 - rate) times h otherwise. The masks are those of noise.h.
struct Noise {
  double zoneout_outputs = 0, zoneout_states = 0, drop_states = 0;

  constexpr bool any() const {
    return zoneout_outputs > 0 || zoneout_states > 0 || drop_states > 0;
  }
};

// Whether float32 layers use TF32 by default: the variable FASTRNN_TF32, 0 or 1; 1 if it is not
// set. Throws InvalidArgument for any other value.
bool DefaultTf32();
// The wanted value, or false if NVIDIA_TF32_OVERRIDE is 0. cuBLAS reads that variable too: it
// disables TF32 in every library of the process.
bool WithoutOverruledTf32(bool wanted);

// How the CUDA backend runs the steps of a layer. What is not set, the backend chooses. The numbers
// are for tests and benchmarks; cuda/plan.h describes them.
struct Algorithm {
  enum class Kind { kAuto, kStepwise, kPersistent };
  Kind kind = Kind::kAuto;
  std::optional<int> row_tiles, backward_row_tiles, batch_tiles;
  std::optional<int> groups, directions;
  std::optional<int> split;          // the parts of K, backward
  std::optional<int> cluster;        // whether blocks form clusters, 0 or 1
  std::optional<int> shared_slices;  // the most slices of a warp's weights in shared memory
  std::optional<int> tagged;         // forward: whether blocks exchange tagged words, 0 or 1
};

// Accepts auto, stepwise and persistent, the first and the last also with Algorithm's numbers, as
// in persistent:NAME=NUMBER,NAME=NUMBER... what: the text's name in the message of InvalidArgument.
Algorithm ParseAlgorithm(const std::string& what, const std::string& text);

// The variable FASTRNN_ALGORITHM, or auto if it is not set.
Algorithm DefaultAlgorithm();

// One layer.
struct LayerDesc {
  Mode mode = Mode::kLstm;
  DType dtype = DType::kFloat32;
  Device device = Device::kCpu;
  int device_index = 0;    // which of the CUDA devices
  int64_t steps = 0;       // T
  int64_t batch = 0;       // N
  int64_t input = 0;       // I
  int64_t hidden = 0;      // H
  int64_t projection = 0;  // P of a projected LSTM; 0: the layer is not projected
  int64_t directions = 1;  // D
  Clip<double> clip;       // LSTM only
  Noise noise;
  bool layer_norm = false;  // LSTM and GRU only, without projection, clip and noise
  bool reserve = false;     // forward writes the reserve, which backward reads
  // CUDA only: whether float32 products may round their factors to TF32 (10 bits of mantissa), and
  // how steps are run.
  bool tf32 = false;
  Algorithm algorithm;
  int threads = 0;  // the most on the host; 0: as many as the backend has

  const CellTraits& cell() const { return TraitsOf(mode); }
  bool has_c() const { return cell().has_c; }
  bool projected() const { return projection != 0; }
  int64_t outputs() const { return projected() ? projection : hidden; }  // P
  int64_t gate_rows() const { return cell().gates * hidden; }
  int64_t rows() const { return steps * batch; }
};

// The layers. They differ only in `input`, which is the lowest one's.
struct Layers : LayerDesc {
  int64_t layers = 1;  // L

  LayerDesc At(int64_t layer) const;
};

constexpr int kMaxDirections = 2;

// Throws InvalidArgument if a size is below 1, directions is not 1 or 2, an array's size overflows,
// the cell state's range is empty, or an option is given that the cell does not have.
void Validate(const Layers& layers);

// The last part of that: options that a cell does not have, or that exclude each other. Only
// whether the layer is projected matters of its sizes.
void ValidateOptions(const LayerDesc& desc);

// Words of 4 bytes for each step and row: the layers' own reserves and the outputs of all layers
// but the last. Backward needs them besides the inputs and the output of forward.
int64_t ReserveWords(const Layers& layers);

// One direction's parameters.
struct Weights {
  const void* i2h_weight;            // [G*H, I]
  const void* h2h_weight;            // [G*H, P]
  const void* i2h_bias;              // [G*H]
  const void* h2h_bias;              // [G*H]
  const void* h2r_weight = nullptr;  // [P, H], if the layer is projected
  // If the layer is normalised; the last two for an LSTM.
  const void* i2h_gamma = nullptr;  // [G*H]
  const void* h2h_gamma = nullptr;  // [G*H]
  const void* c_gamma = nullptr;    // [H]
  const void* c_beta = nullptr;     // [H]
};

// Gradients with respect to one direction's parameters; shapes as in Weights.
struct WeightGradients {
  void* i2h_weight;
  void* h2h_weight;
  void* i2h_bias;
  void* h2h_bias;
  void* h2r_weight = nullptr;
  void* i2h_gamma = nullptr;
  void* h2h_gamma = nullptr;
  void* c_gamma = nullptr;
  void* c_beta = nullptr;
};

// Lengths: row n takes part in the steps at time 0 to lengths[n] - 1, and the reverse direction
// starts at lengths[n] - 1. Lengths are clamped to 0 to T, since the host does not read lengths on
// a GPU. Past a row's length
//   - x and dy are ignored, even if they are NaN;
//   - y and dx are zeros, and no step there adds to any gradient. (dx is a product of zeros with
//     the weights, and is NaN if those are not finite.)
// hn and cn are the row's states after its own last step: the initial ones if the length is 0.

// Seed: the 64 bits of a layer's noise, each 0 or 2, on the device of the arrays. These are what
// MXNet's Dropout of 64 ones draws at the rate 0.5. Outside of training it leaves the ones: so if
// all numbers are 1, or if the seed is null, nothing is drawn, and each mask is replaced by its
// mean. The host does not read a seed on a GPU.

// No output may overlap an input or another output.
struct ForwardArrays {
  const void* x = nullptr;           // [T, N, I]
  const int32_t* lengths = nullptr;  // [N] on the arrays' device; null: every row has T steps
  const void* h0 = nullptr;          // [L*D, N, P]
  const void* c0 = nullptr;          // [L*D, N, H], LSTM only
  const Weights* weights = nullptr;  // [L*D], the lowest layer first
  const float* seed = nullptr;       // for layers with noise, see above
  int64_t first_layer = 0;           // of a stack, in which the masks count the layers
  void* y = nullptr;                 // [T, N, D*P], forward direction first
  void* hn = nullptr;                // [L*D, N, P], after the last step of each direction
  void* cn = nullptr;                // [L*D, N, H], LSTM only
  void* reserve = nullptr;           // Plan::reserve_bytes(), aligned to 4, in float64 to 8
  void* workspace = nullptr;         // Plan::workspace_bytes(), aligned to kWorkspaceAlignment
  void* stream = nullptr;            // on CUDA, the cudaStream_t for all work
  bool in_openmp = false;            // on the host: whether the calling thread runs OpenMP's teams
};

struct BackwardArrays {
  const void* x = nullptr;  // as given to forward, as is everything up to the first layer
  const int32_t* lengths = nullptr;
  const void* h0 = nullptr;
  const void* c0 = nullptr;
  const Weights* weights = nullptr;
  const float* seed = nullptr;
  int64_t first_layer = 0;
  const void* y = nullptr;                     // as written by forward
  const void* reserve = nullptr;               // as written by forward
  const void* dy = nullptr;                    // [T, N, D*P]
  const void* dhn = nullptr;                   // [L*D, N, P]
  const void* dcn = nullptr;                   // [L*D, N, H], LSTM only
  void* dx = nullptr;                          // [T, N, I]
  void* dh0 = nullptr;                         // [L*D, N, P]
  void* dc0 = nullptr;                         // [L*D, N, H], LSTM only
  const WeightGradients* gradients = nullptr;  // [L*D]
  void* workspace = nullptr;
  void* stream = nullptr;
  bool in_openmp = false;
};

// The contents of a workspace before a call do not matter.
constexpr size_t kWorkspaceAlignment = 64;

enum class Pass { kForward, kBackward };

class LayerPlan;

// How layers are run. The description has been checked and every choice made: a call only checks
// that the arrays are present and aligned, and runs. Calls do not change a plan; several threads
// may use it at once.
class Plan {
 public:
  // Makes a new plan; MakePlan reuses plans.
  explicit Plan(const Layers& layers);
  ~Plan();
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  const Layers& layers() const { return layers_; }
  // A multiple of 4; 0 if backward needs no reserve.
  size_t reserve_bytes() const { return reserve_bytes_; }
  size_t workspace_bytes(Pass pass) const;
  // How the layers are run, and why: a line for each layer and pass.
  std::string Reason() const;

  // Throws InvalidArgument if an array is null or not aligned to its type, and LibraryError if a
  // library underneath fails.
  void Forward(const ForwardArrays& arrays) const;
  // For layers with `reserve`.
  void Backward(const BackwardArrays& arrays) const;

 private:
  const LayerPlan& At(int64_t layer) const { return layer == 0 ? *first_ : *upper_; }
  size_t LayerBytes(Pass pass) const;

  Layers layers_;
  size_t reserve_bytes_ = 0;
  std::unique_ptr<const LayerPlan> first_, upper_;  // upper_: for all layers above the first
};

// The plan for these layers. The most recently used plans are kept and reused for the same
// description. Throws InvalidArgument if a size is wrong (Validate), this build has no backend for
// the device, or the backend or the device does not cover the layers (CUDA has no float64, and
// needs compute capability 7.0, for bfloat16 8.0); and LibraryError if a library underneath fails.
std::shared_ptr<const Plan> MakePlan(const Layers& layers);

// How many plans MakePlan has made.
int64_t PlansMade();

}  // namespace fastrnn
