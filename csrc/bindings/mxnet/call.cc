#include "call.h"

#include <cstddef>
#include <limits>
#include <string>

#include "../../backend.h"
#include "../../error.h"
#include "../../layout.h"
#include "../../parameters.h"

namespace fastrnn {
namespace operators {
namespace {

using mxnet::ext::MXTensor;
using mxnet::ext::OpResource;

// In tests the CUDA backend may be emulated, and works in the host's memory.
#ifdef FASTRNN_EMULATE
constexpr bool kEmulated = true;
#else
constexpr bool kEmulated = false;
#endif

// MXNet takes the number of bytes as an int. Emulated builds set a lower limit, so that small tests
// exceed it.
#if !defined(FASTRNN_MXNET_WORKSPACE_BYTES)
#define FASTRNN_MXNET_WORKSPACE_BYTES std::numeric_limits<int>::max()
#endif
constexpr size_t kMostOfMxnet = FASTRNN_MXNET_WORKSPACE_BYTES;

bool OnGpu(const LayerDesc& desc) { return desc.device == Device::kCuda && !kEmulated; }

// The stream to work on. MXNet synchronizes with it; the operators never do.
void* Stream(const LayerDesc& desc, const OpResource& resource) {
  return OnGpu(desc) ? resource.get_cuda_stream() : nullptr;
}

// MXNet provides one shared chunk per call, of less than 2 GiB. The backend allocates a larger
// workspace for the duration of the call.
class MxnetWorkspace {
 public:
  MxnetWorkspace(const LayerDesc& desc, const OpResource& resource, size_t bytes) {
    size_t space = bytes + kWorkspaceAlignment;
    if (space > kMostOfMxnet) {
      memory_ = BackendOf(desc.device).Allocate(desc.device_index, space, Stream(desc, resource));
      data_ = memory_->data();
    } else {
      const int size = static_cast<int>(space);
      data_ = OnGpu(desc) ? resource.alloc_gpu(size) : resource.alloc_cpu(size);
      FASTRNN_EXPECTS(data_ != nullptr, "MXNet granted no workspace");
    }
    std::align(kWorkspaceAlignment, bytes, data_, space);
  }
  void* data() const { return data_; }

 private:
  void* data_;
  std::unique_ptr<Memory> memory_;  // freed in the order of the stream
};

// An array that a layer may lack.
template <class T>
const T* Optional(const MXTensor* inputs, int position) {
  if (position == Positions::kNone) return nullptr;
  return static_cast<const T*>(inputs[position].data_ptr);
}

// The arrays of each layer and direction, among the inputs or their gradients; `member` is that of
// Parameter for them.
template <class Direction, class Member>
std::vector<Direction> Directions(const Layers& layers, const Positions& positions,
                                  const MXTensor* arrays, Member member) {
  const std::vector<Parameter> parameters = ParametersOf(layers);
  std::vector<Direction> found(static_cast<size_t>(layers.layers * layers.directions));
  auto position = positions.weights.begin();
  for (Direction& direction : found) {
    for (const Parameter& parameter : parameters) {
      direction.*(parameter.*member) = arrays[*position++].data_ptr;
    }
  }
  return found;
}

std::string SizeAndType(const MXTensor& tensor) {
  return "size " + std::to_string(tensor.size()) + " and MXNet's type number " +
         std::to_string(tensor.dtype);
}

// The gradient of an output. MXNet does not compare what its `backward` is given with the outputs;
// the layer would read it as another type, or beyond its end.
const void* HeadGradient(const MXTensor& gradient, const MXTensor& output, const char* name) {
  FASTRNN_EXPECTS(gradient.dtype == output.dtype && gradient.size() == output.size(),
                  std::string("the gradient of the ") + name + " has " + SizeAndType(gradient) +
                      ", expected " + SizeAndType(output));
  return gradient.data_ptr;
}

// The states of a call that is given none: zeros, which are also the gradients of the last states,
// and arrays for what a pass writes there.
class OwnStates {
 public:
  OwnStates(const Layers& layers, const Positions& positions)
      : needed_(positions.states == Positions::kNone) {
    const int64_t rows = layers.layers * layers.directions * layers.batch;
    const auto size = static_cast<size_t>(rows * SizeOf(layers.dtype));
    h_ = Carver::Round(size * static_cast<size_t>(layers.outputs()));
    c_ = layers.has_c() ? Carver::Round(size * static_cast<size_t>(layers.hidden)) : 0;
  }
  size_t bytes() const { return needed_ ? 2 * (h_ + c_) : 0; }

  void Set(const Layers& layers, void* memory, ForwardArrays* args) const {
    if (!needed_) return;
    char* const written = Clear(layers, memory, args);
    args->hn = written;
    if (layers.has_c()) args->cn = written + h_;
  }
  void Set(const Layers& layers, void* memory, BackwardArrays* args) const {
    if (!needed_) return;
    char* const written = Clear(layers, memory, args);
    args->dhn = args->h0;
    args->dh0 = written;
    if (layers.has_c()) {
      args->dcn = args->c0;
      args->dc0 = written + h_;
    }
  }

 private:
  // Returns the place behind the zeros.
  template <class Arrays>
  char* Clear(const Layers& layers, void* memory, Arrays* args) const {
    auto* const zeros = static_cast<char*>(memory);
    BackendOf(layers.device).FillWithZeros(layers.device_index, zeros, h_ + c_, args->stream);
    args->h0 = zeros;
    if (layers.has_c()) args->c0 = zeros + h_;
    return zeros + h_ + c_;
  }

  const bool needed_;
  size_t h_, c_;  // bytes of all layers' h, and c
};

// What both passes take, but the weights.
template <class Arrays>
Arrays Inputs(const Layers& layers, const Positions& positions, int64_t first_layer,
              const MXTensor* inputs) {
  Arrays args;
  args.x = inputs[Positions::kData].data_ptr;
  args.lengths = Optional<int32_t>(inputs, positions.lengths);
  if (positions.states != Positions::kNone) {
    args.h0 = inputs[positions.states].data_ptr;
    if (layers.has_c()) args.c0 = inputs[positions.states + 1].data_ptr;
  }
  args.seed = Optional<float>(inputs, positions.seed);
  args.first_layer = first_layer;
  args.in_openmp = true;  // MXNet's own operators run on a team of the same thread
  return args;
}

}  // namespace

int TypeNumber(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return mxnet::ext::kFloat32;
    case DType::kFloat16:
      return mxnet::ext::kFloat16;
    case DType::kFloat64:
      return mxnet::ext::kFloat64;
    case DType::kBfloat16:
      break;
  }
  throw InvalidArgument(std::string("MXNet's libraries have no ") + Name(dtype), __FILE__,
                        __LINE__);
}

int InputType(const Layers& layers, const Positions& positions, int index) {
  if (index == positions.lengths) return mxnet::ext::kInt32;
  if (index == positions.seed) return mxnet::ext::kFloat32;
  return TypeNumber(layers.dtype);
}

std::shared_ptr<const Plan> PlanFor(const Options& options, const MXTensor& data) {
  Layers layers = options.layers;
  layers.tf32 = WithoutOverruledTf32(options.tf32.value_or(DefaultTf32()));
  layers.algorithm = DefaultAlgorithm();
  const bool cuda = kEmulated || data.ctx.dev_type == "gpu";
  layers.device = cuda ? Device::kCuda : Device::kCpu;
  layers.device_index = OnGpu(layers) ? data.ctx.dev_id : 0;
  layers.steps = data.shape.at(0);
  layers.batch = data.shape.at(1);
  layers.input = data.shape.at(2);
  return MakePlan(layers);
}

void RunForward(const Plan& plan, const Positions& positions, int64_t first_layer,
                const std::vector<MXTensor>& inputs, const std::vector<MXTensor>& outputs,
                void* reserve, const OpResource& resource) {
  const Layers& layers = plan.layers();
  auto args = Inputs<ForwardArrays>(layers, positions, first_layer, inputs.data());
  const auto weights = Directions<Weights>(layers, positions, inputs.data(), &Parameter::weight);
  args.weights = weights.data();
  args.y = outputs.at(0).data_ptr;
  if (positions.states != Positions::kNone) {
    args.hn = outputs.at(1).data_ptr;
    if (layers.has_c()) args.cn = outputs.at(2).data_ptr;
  }
  args.reserve = reserve;
  const OwnStates states(layers, positions);
  const size_t bytes = Carver::Round(plan.workspace_bytes(Pass::kForward));
  const MxnetWorkspace workspace(layers, resource, bytes + states.bytes());
  args.workspace = workspace.data();
  args.stream = Stream(layers, resource);
  states.Set(layers, static_cast<char*>(workspace.data()) + bytes, &args);
  plan.Forward(args);
}

void RunBackward(const Plan& plan, const Positions& positions, int64_t first_layer,
                 const std::vector<MXTensor>& tensors, const void* reserve,
                 const std::vector<MXTensor>& gradients, const OpResource& resource) {
  const Layers& layers = plan.layers();
  const MXTensor* const d_out = tensors.data();
  const MXTensor* const in = d_out + positions.outputs;
  const MXTensor* const out = in + positions.inputs;
  auto args = Inputs<BackwardArrays>(layers, positions, first_layer, in);
  const auto weights = Directions<Weights>(layers, positions, in, &Parameter::weight);
  args.weights = weights.data();
  args.y = out[0].data_ptr;
  args.reserve = reserve;
  args.dy = HeadGradient(d_out[0], out[0], "output");
  args.dx = gradients.at(Positions::kData).data_ptr;
  const auto weight_gradients =
      Directions<WeightGradients>(layers, positions, gradients.data(), &Parameter::gradient);
  args.gradients = weight_gradients.data();
  if (positions.states != Positions::kNone) {
    const auto first = static_cast<size_t>(positions.states);
    args.dhn = HeadGradient(d_out[1], out[1], "state");
    args.dh0 = gradients.at(first).data_ptr;
    if (layers.has_c()) {
      args.dcn = HeadGradient(d_out[2], out[2], "cell state");
      args.dc0 = gradients.at(first + 1).data_ptr;
    }
  }
  const OwnStates states(layers, positions);
  const size_t bytes = Carver::Round(plan.workspace_bytes(Pass::kBackward));
  const MxnetWorkspace workspace(layers, resource, bytes + states.bytes());
  args.workspace = workspace.data();
  args.stream = Stream(layers, resource);
  states.Set(layers, static_cast<char*>(workspace.data()) + bytes, &args);
  plan.Backward(args);
}

}  // namespace operators
}  // namespace fastrnn
