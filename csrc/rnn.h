// The one contract between the bindings (MXNet operators, Python module) and the kernels: describe
// recurrent layers, get a plan, run it on arrays.
//
//   std::shared_ptr<const Plan> plan = MakePlan(layers);
//   plan->Forward(arrays, stream);
//
// No framework and no CUDA header is included here. What implements layers on a device is behind
// backend.h.
//
// T steps, N sequences in the batch, I inputs, H hidden units, D directions (1 or 2), G gates,
// L layers, of which each takes the output of the one below; above the first, I is D*H. All arrays
// are dense, row-major, on one device, and of the layers' type, which void* stands for.
// Gate order and arithmetic are MXNet's and cuDNN's:
//
//   LSTM            G = 4   i, f, g, o
//   GRU             G = 3   r, z, n; linear before reset
//   tanh, relu RNN  G = 1
//
// 16-bit types are for arrays: products of 16-bit factors are summed in float32, the cells' own
// arithmetic, c and the running gradients are float32 from the first step to the last, and so are
// the sums that weight gradients are. dx of two directions is rounded twice.
//
// Python's face of it is fastrnn.kernels:
//   forward(mode, x, weights, h_0, c_0, layers=1, lengths=None, tf32=None, algorithm=None,
//           reserve=False, out=None, stream=None)
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace fastrnn {

enum class Mode { kLstm, kGru, kRnnTanh, kRnnRelu };

enum class DType { kFloat32, kFloat16, kBfloat16 };

enum class Device { kCpu, kCuda };

// Accepts lstm, gru, rnn_tanh and rnn_relu, MXNet's names; throws InvalidArgument for others.
Mode ParseMode(const std::string& name);

// Accepts float32, float16 and bfloat16; throws InvalidArgument for others.
DType ParseDType(const std::string& name);

// In the order of DType.
struct DTypeTraits {
  const char* name;
  int64_t size;  // bytes of one value
};
constexpr DTypeTraits kDTypes[] = {{"float32", 4}, {"float16", 2}, {"bfloat16", 2}};

constexpr const char* Name(DType dtype) { return kDTypes[static_cast<int>(dtype)].name; }
constexpr int64_t SizeOf(DType dtype) { return kDTypes[static_cast<int>(dtype)].size; }

// What a mode's cell has; cells/cell.h describes it.
struct CellTraits {
  const char* name;
  int gates;  // G
  bool has_c;
  bool split_shares;
  bool keeps_gates;
};
const CellTraits& TraitsOf(Mode mode);

// Whether float32 layers use TF32 where nobody says: FASTRNN_TF32 is 0 or 1, and 1 where it is not
// set. Throws InvalidArgument if it is anything else.
bool DefaultTf32();
// What is left of that, or of another wish, where NVIDIA_TF32_OVERRIDE is 0. cuBLAS knows the
// variable too: what it forbids is forbidden to every library of the process.
bool WithoutOverruledTf32(bool wanted);

// How the CUDA backend runs the steps of a layer. The numbers are for tests and benchmarks: 0, and
// for the last two -1, where the backend is to choose; cuda/plan.h says what they are.
struct Algorithm {
  enum class Kind { kAuto, kStepwise, kPersistent };
  Kind kind = Kind::kAuto;
  int row_tiles = 0;
  int backward_row_tiles = 0;
  int batch_tiles = 0;
  int groups = 0;
  int directions = 0;
  int split = 0;
  int cluster = -1;
  int shared_chunks = -1;
};

// Accepts auto, stepwise and persistent, the first and the last also with numbers, as in
// persistent:NAME=NUMBER,NAME=NUMBER... with the names of Algorithm's. what: what the text is, for
// the message of the InvalidArgument.
Algorithm ParseAlgorithm(const std::string& what, const std::string& text);

// What FASTRNN_ALGORITHM says, and auto where it is not set.
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
  int64_t directions = 1;  // D
  bool reserve = false;    // forward writes the reserve, which backward reads
  // Looked at on CUDA alone. Whether float32 products may round their factors to TF32 (10 bits of
  // mantissa), and how steps are run.
  bool tf32 = false;
  Algorithm algorithm;
  int threads = 0;  // of the host; MakePlan sets it

  const CellTraits& cell() const { return TraitsOf(mode); }
  bool has_c() const { return cell().has_c; }
  int64_t gate_rows() const { return cell().gates * hidden; }
  int64_t rows() const { return steps * batch; }
};

// The layers, of which all but `input` are alike: that is the lowest one's.
struct Layers : LayerDesc {
  int64_t layers = 1;  // L

  LayerDesc At(int64_t layer) const;
};

constexpr int kMaxDirections = 2;

// Throws InvalidArgument where a size is below 1, directions is not 1 or 2, or an array's size
// overflows.
void Validate(const Layers& layers);

// Words of 4 bytes for each step and row: what backward needs beyond the inputs and the output of
// forward, which is the layers' own reserves and the outputs of all layers but the last.
int64_t ReserveWords(const Layers& layers);

// One direction's parameters.
struct Weights {
  const void* i2h_weight;  // [G*H, I]
  const void* h2h_weight;  // [G*H, H]
  const void* i2h_bias;    // [G*H]
  const void* h2h_bias;    // [G*H]
};

// Gradients with respect to one direction's parameters; shapes as in Weights.
struct WeightGradients {
  void* i2h_weight;
  void* h2h_weight;
  void* i2h_bias;
  void* h2h_bias;
};

// Lengths: row n takes part in the steps at time 0 to lengths[n] - 1, and the reverse direction
// starts at lengths[n] - 1. What is below 0 counts as 0 and what is above T as T, since the host
// does not look at lengths that are on a GPU. Past a row's length
//   - x and dy are not looked at: NaN there harms nothing;
//   - y and dx are zeros, and no step there adds to any gradient. (dx is a product of zeros with
//     the weights: where those are not finite, it is none.)
// hn and cn are the row's states after its own last step: the initial ones where the length is 0.

// No output may overlap an input or another output.
struct ForwardArrays {
  const void* x = nullptr;           // [T, N, I]
  const int32_t* lengths = nullptr;  // [N] on the arrays' device; null: every row has T steps
  const void* h0 = nullptr;          // [L*D, N, H]
  const void* c0 = nullptr;          // [L*D, N, H], LSTM only
  std::vector<Weights> weights;      // of each layer and direction, the lowest layer first
  void* y = nullptr;                 // [T, N, D*H], forward direction first
  void* hn = nullptr;                // [L*D, N, H], after the last step of each direction
  void* cn = nullptr;                // [L*D, N, H], LSTM only
  void* reserve = nullptr;           // Plan::reserve_bytes(), aligned to 4
  void* workspace = nullptr;         // Plan::workspace_bytes(), aligned to kWorkspaceAlignment
};

struct BackwardArrays {
  const void* x = nullptr;  // as given to forward, and so on
  const int32_t* lengths = nullptr;
  const void* h0 = nullptr;
  const void* c0 = nullptr;
  std::vector<Weights> weights;
  const void* y = nullptr;        // as written by forward
  const void* reserve = nullptr;  // as written by forward
  const void* dy = nullptr;       // [T, N, D*H]
  const void* dhn = nullptr;      // [L*D, N, H]
  const void* dcn = nullptr;      // [L*D, N, H], LSTM only
  void* dx = nullptr;             // [T, N, I]
  void* dh0 = nullptr;            // [L*D, N, H]
  void* dc0 = nullptr;            // [L*D, N, H], LSTM only
  std::vector<WeightGradients> gradients;
  void* workspace = nullptr;
};

// What a workspace holds before a call does not matter.
constexpr size_t kWorkspaceAlignment = 64;

enum class Pass { kForward, kBackward };

class LayerPlan;

// How layers are run. All has been decided, and all of a description has been checked: a call
// checks that the arrays are there and aligned, and runs. A plan is not changed by its calls, which
// may come from several threads at once.
class Plan {
 public:
  // Plans the layers anew; MakePlan keeps plans.
  explicit Plan(const Layers& layers);
  ~Plan();
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  const Layers& layers() const { return layers_; }
  // A multiple of 4, and 0 where backward needs no reserve.
  size_t reserve_bytes() const { return reserve_bytes_; }
  size_t workspace_bytes(Pass pass) const;
  // How the layers are run, and why: a line for each layer and pass.
  std::string Reason() const;

  // stream: a cudaStream_t on CUDA, on which everything is enqueued; unused on the CPU. Throws
  // InvalidArgument where an array is null or not aligned to its type, and LibraryError where a
  // library underneath fails.
  void Forward(const ForwardArrays& arrays, void* stream) const;
  // Of layers with `reserve`.
  void Backward(const BackwardArrays& arrays, void* stream) const;

 private:
  const LayerPlan& At(int64_t layer) const { return layer == 0 ? *first_ : *upper_; }
  size_t LayerBytes(Pass pass) const;

  Layers layers_;
  size_t reserve_bytes_ = 0;
  std::unique_ptr<const LayerPlan> first_, upper_;  // upper_: of all layers above the first
};

// The plan for these layers: the one that was made before, where the description is the same. The
// plans that were used last are kept. Throws InvalidArgument where a size is wrong (Validate), this
// build has no backend for the device, or the backend or the device does not cover the layers (the
// CPU has float32 only; CUDA devices of compute capability 7.0 and higher, bfloat16 from 8.0); and
// LibraryError where a library underneath fails.
std::shared_ptr<const Plan> MakePlan(const Layers& layers);

// How many plans MakePlan has made.
int64_t PlansMade();

}  // namespace fastrnn
