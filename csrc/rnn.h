// One recurrent layer, forward and backward: the interface between the bindings (MXNet operators,
// Python module) and the backends. No framework and no CUDA header is included here.
//
// T steps, N sequences in the batch, I inputs, H hidden units, D directions (1 or 2), G gates.
// All arrays are dense, row-major, on one device, and of the layer's type, which void* stands for.
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
#include <string>

namespace fastrnn {

enum class Mode { kLstm, kGru, kRnnTanh, kRnnRelu };

enum class DType { kFloat32, kFloat16, kBfloat16 };

enum class Device { kCpu, kCuda };

// Accepts lstm, gru, rnn_tanh and rnn_relu, MXNet's names; throws InvalidArgument for others.
Mode ParseMode(const std::string& name);

// Accepts float32, float16 and bfloat16; throws InvalidArgument for others.
DType ParseDType(const std::string& name);
const char* Name(DType dtype);

// Bytes of one value.
constexpr int64_t SizeOf(DType dtype) { return dtype == DType::kFloat32 ? 4 : 2; }

// G, the number of gates.
constexpr int Gates(Mode mode) { return mode == Mode::kLstm ? 4 : mode == Mode::kGru ? 3 : 1; }

// What backward needs beyond inputs and outputs, in multiples of 4 bytes per step, row, direction
// and hidden unit: the activated gates in the layer's type, and c in float32 (LSTM) or the hidden
// part of the new gate in the layer's type (GRU). An RNN needs only its output.
constexpr int64_t ReserveWords(Mode mode, DType dtype) {
  if (mode == Mode::kLstm) return SizeOf(dtype) + 1;
  return mode == Mode::kGru ? SizeOf(dtype) : 0;
}

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

  int64_t gate_rows() const { return Gates(mode) * hidden; }
  int64_t rows() const { return steps * batch; }
  bool has_cell() const { return mode == Mode::kLstm; }
};

constexpr int kMaxDirections = 2;

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
struct ForwardArgs {
  const void* x = nullptr;           // [T, N, I]
  const int32_t* lengths = nullptr;  // [N] on the arrays' device; null: every row has T steps
  const void* h0 = nullptr;          // [D, N, H]
  const void* c0 = nullptr;          // [D, N, H], LSTM only
  Weights weights[kMaxDirections] = {};
  void* y = nullptr;          // [T, N, D*H], forward direction first
  void* hn = nullptr;         // [D, N, H], the state after the last step of each direction
  void* cn = nullptr;         // [D, N, H], LSTM only
  void* reserve = nullptr;    // ReserveBytes(desc), aligned to 4, where desc.reserve is set
  void* workspace = nullptr;  // ForwardWorkspaceBytes(desc), kWorkspaceAlignment
  void* stream = nullptr;     // cudaStream_t on CUDA, unused on the CPU
  int64_t layer = 0;          // which one of a stack this is, for messages
};

struct BackwardArgs {
  const void* x = nullptr;  // as given to forward, and so on
  const int32_t* lengths = nullptr;
  const void* h0 = nullptr;
  const void* c0 = nullptr;
  Weights weights[kMaxDirections] = {};
  const void* y = nullptr;        // as written by forward
  const void* reserve = nullptr;  // as written by forward
  const void* dy = nullptr;       // [T, N, D*H]
  const void* dhn = nullptr;      // [D, N, H]
  const void* dcn = nullptr;      // [D, N, H], LSTM only
  void* dx = nullptr;             // [T, N, I]
  void* dh0 = nullptr;            // [D, N, H]
  void* dc0 = nullptr;            // [D, N, H], LSTM only
  WeightGradients gradients[kMaxDirections] = {};
  void* workspace = nullptr;  // BackwardWorkspaceBytes(desc), kWorkspaceAlignment
  void* stream = nullptr;
  int64_t layer = 0;
};

// What a workspace holds before a call does not matter.
constexpr size_t kWorkspaceAlignment = 64;

// Throws InvalidArgument where a size is below 1, directions is not 1 or 2, or an array's size
// overflows.
void Validate(const LayerDesc& desc);

// A multiple of 4, and 0 where backward needs no reserve.
size_t ReserveBytes(const LayerDesc& desc);

// All of the following throw InvalidArgument where this build has no backend for desc.device, or
// the backend or the device does not cover the layer (the CPU has float32 only; CUDA devices of
// compute capability 7.0 and higher, bfloat16 from 8.0), or an array is null or not aligned to its
// type; and LibraryError where a library underneath fails.
size_t ForwardWorkspaceBytes(const LayerDesc& desc);
size_t BackwardWorkspaceBytes(const LayerDesc& desc);
void Forward(const LayerDesc& desc, const ForwardArgs& args);
void Backward(const LayerDesc& desc, const BackwardArgs& args);

// The backends. Each is a folder of its own and knows nothing of the other.
namespace cpu {
size_t ForwardWorkspaceBytes(const LayerDesc& desc);
size_t BackwardWorkspaceBytes(const LayerDesc& desc);
void Forward(const LayerDesc& desc, const ForwardArgs& args);
void Backward(const LayerDesc& desc, const BackwardArgs& args);
std::string OnednnVersion();
}  // namespace cpu

// Everything is enqueued on args.stream of the device desc.device_index, which is current only
// during the call. Nothing waits for the device, and arrays are read and written by it alone.
namespace cuda {
size_t ForwardWorkspaceBytes(const LayerDesc& desc);
size_t BackwardWorkspaceBytes(const LayerDesc& desc);
void Forward(const LayerDesc& desc, const ForwardArgs& args);
void Backward(const LayerDesc& desc, const BackwardArgs& args);
}  // namespace cuda

}  // namespace fastrnn
