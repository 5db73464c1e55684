// One recurrent layer, forward and backward: the interface between the bindings (MXNet operators,
// Python module) and the backends. No framework and no CUDA header is included here.
//
// T steps, N sequences in the batch, I inputs, H hidden units, D directions (1 or 2), G gates.
// All arrays are dense, row-major, on one device. Gate order and arithmetic are MXNet's and
// cuDNN's:
//   LSTM  G = 4: i, f, g, o      GRU  G = 3: r, z, n (linear before reset)      tanh, relu RNN  G =
//   1
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace fastrnn {

enum class Mode { kLstm, kGru, kRnnTanh, kRnnRelu };

enum class Device { kCpu, kCuda };

// Accepts lstm, gru, rnn_tanh and rnn_relu, MXNet's names; throws InvalidArgument for others.
Mode ParseMode(const std::string& name);

// G, the number of gates.
constexpr int Gates(Mode mode) { return mode == Mode::kLstm ? 4 : mode == Mode::kGru ? 3 : 1; }

// Values that backward needs beyond inputs and outputs, in multiples of H per step, row and
// direction: the activated gates, and c (LSTM) or the hidden part of the new gate (GRU). An RNN
// needs only its output.
constexpr int ReserveFactor(Mode mode) {
  return mode == Mode::kLstm ? 5 : mode == Mode::kGru ? 4 : 0;
}

struct LayerDesc {
  Mode mode = Mode::kLstm;
  Device device = Device::kCpu;
  int device_index = 0;    // which of the CUDA devices
  int64_t steps = 0;       // T
  int64_t batch = 0;       // N
  int64_t input = 0;       // I
  int64_t hidden = 0;      // H
  int64_t directions = 1;  // D
  bool reserve = false;    // forward writes the reserve, which backward reads

  int64_t gate_rows() const { return Gates(mode) * hidden; }
  int64_t rows() const { return steps * batch; }
  bool has_cell() const { return mode == Mode::kLstm; }
};

constexpr int kMaxDirections = 2;

// One direction's parameters.
struct Weights {
  const float* i2h_weight;  // [G*H, I]
  const float* h2h_weight;  // [G*H, H]
  const float* i2h_bias;    // [G*H]
  const float* h2h_bias;    // [G*H]
};

// Gradients with respect to one direction's parameters; shapes as in Weights.
struct WeightGradients {
  float* i2h_weight;
  float* h2h_weight;
  float* i2h_bias;
  float* h2h_bias;
};

// No output may overlap an input or another output.
struct ForwardArgs {
  const float* x = nullptr;   // [T, N, I]
  const float* h0 = nullptr;  // [D, N, H]
  const float* c0 = nullptr;  // [D, N, H], LSTM only
  Weights weights[kMaxDirections] = {};
  float* y = nullptr;        // [T, N, D*H], forward direction first
  float* hn = nullptr;       // [D, N, H], the state after the last step of each direction
  float* cn = nullptr;       // [D, N, H], LSTM only
  float* reserve = nullptr;  // ReserveValues(desc) values, where desc.reserve is set
  void* workspace =
      nullptr;  // ForwardWorkspaceBytes(desc), kWorkspaceAlignment; contents do not matter
  void* stream = nullptr;  // cudaStream_t on CUDA, unused on the CPU
};

struct BackwardArgs {
  const float* x = nullptr;   // as given to forward
  const float* h0 = nullptr;  // as given to forward
  const float* c0 = nullptr;  // as given to forward
  Weights weights[kMaxDirections] = {};
  const float* y = nullptr;        // as written by forward
  const float* reserve = nullptr;  // as written by forward
  const float* dy = nullptr;       // [T, N, D*H]
  const float* dhn = nullptr;      // [D, N, H]
  const float* dcn = nullptr;      // [D, N, H], LSTM only
  float* dx = nullptr;             // [T, N, I]
  float* dh0 = nullptr;            // [D, N, H]
  float* dc0 = nullptr;            // [D, N, H], LSTM only
  WeightGradients gradients[kMaxDirections] = {};
  void* workspace = nullptr;  // BackwardWorkspaceBytes(desc), kWorkspaceAlignment
  void* stream = nullptr;
};

constexpr size_t kWorkspaceAlignment = 64;

// Throws InvalidArgument where a size is below 1, directions is not 1 or 2, or an array's size
// overflows.
void Validate(const LayerDesc& desc);

// All of the following throw InvalidArgument where this build has no backend for desc.device, and
// LibraryError where a library underneath fails.
int64_t ReserveValues(const LayerDesc& desc);
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
