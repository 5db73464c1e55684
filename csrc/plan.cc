// Plans of layers: each layer's from the backend of its device, and how the layers share the
// reserve and the workspace.
#include <pthread.h>

#include <algorithm>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>

#include "backend.h"
#include "error.h"
#include "layout.h"
#include "parameters.h"
#include "rnn.h"

namespace fastrnn {
namespace {

// ---- backends -----------------------------------------------------------------------------------

const Backend*& Registered(Device device) {
  static const Backend* cpu = nullptr;
  static const Backend* cuda = nullptr;
  return device == Device::kCpu ? cpu : cuda;
}

}  // namespace

Registration::Registration(Device device, const Backend* backend) { Registered(device) = backend; }

const Backend* FindBackend(Device device) { return Registered(device); }

const Backend& BackendOf(Device device) {
  const Backend* const backend = FindBackend(device);
  const bool cpu = device == Device::kCpu;
  FASTRNN_EXPECTS(backend != nullptr,
                  std::string("this build of fastrnn has no ") + (cpu ? "CPU" : "CUDA") +
                      " kernels: it was built without " + (cpu ? "oneDNN" : "the CUDA toolkit"));
  return *backend;
}

// ---- memory of layers ---------------------------------------------------------------------------

namespace {

int64_t OutputBytes(const LayerDesc& desc) {
  return desc.rows() * desc.directions * desc.outputs() * SizeOf(desc.dtype);
}

// The workspace: the layers' outputs, double-buffered, since a layer reads one array and writes the
// other; and the workspace of a single layer.
struct WorkspaceLayout {
  static constexpr int64_t kArrays = 2;

  char* between[kArrays] = {};
  char* of_layer;
  size_t bytes;

  // layer_bytes: the most that a layer needs. Forward with a reserve keeps the outputs there.
  WorkspaceLayout(const Layers& layers, Pass pass, size_t layer_bytes, void* base) {
    Carver carver(base);
    const bool in_reserve = pass == Pass::kForward && layers.reserve;
    const int64_t handed = in_reserve ? 0 : std::min(layers.layers - 1, kArrays);
    for (int64_t i = 0; i < handed; ++i) {
      between[i] = carver.Take<char>(static_cast<size_t>(OutputBytes(layers)));
    }
    of_layer = carver.Take<char>(layer_bytes);
    bytes = carver.used();
  }
};

// A layer's part of states [L*D, N, width] or of their gradients; null stays null.
template <class Pointer>
Pointer StatesAt(const LayerDesc& desc, Pointer states, int64_t width, int64_t layer) {
  if (states == nullptr) return nullptr;
  using Byte =
      std::conditional_t<std::is_const<std::remove_pointer_t<Pointer>>::value, const char, char>;
  const int64_t bytes = desc.directions * desc.batch * width * SizeOf(desc.dtype);
  return static_cast<Byte*>(states) + layer * bytes;
}

template <class Pointer>
Pointer HiddenAt(const LayerDesc& desc, Pointer states, int64_t layer) {
  return StatesAt(desc, states, desc.outputs(), layer);
}
template <class Pointer>
Pointer CellAt(const LayerDesc& desc, Pointer states, int64_t layer) {
  return StatesAt(desc, states, desc.hidden, layer);
}

// The reserve holds each layer's own reserve, then the outputs of all layers but the last.
template <class Byte>
Byte* ReserveAt(const Layers& layers, Byte* reserve, int64_t layer) {
  return At(reserve, layer * layers.rows() * LayerReserveWords(layers) * 4);
}
template <class Byte>
Byte* OutputInReserve(const Layers& layers, Byte* reserve, int64_t layer) {
  return ReserveAt(layers, reserve, layers.layers) + layer * OutputBytes(layers);
}

// What a layer's arrays have in common in both passes.
template <class Arrays>
Arrays OfLayer(const Layers& layers, Arrays arrays, const WorkspaceLayout& workspace,
               int64_t layer) {
  arrays.h0 = HiddenAt(layers, arrays.h0, layer);
  arrays.c0 = CellAt(layers, arrays.c0, layer);
  arrays.weights += layer * layers.directions;
  arrays.first_layer += layer;
  arrays.workspace = workspace.of_layer;
  return arrays;
}

void* ForwardOutput(const Layers& layers, const ForwardArrays& arrays,
                    const WorkspaceLayout& workspace, int64_t layer) {
  if (layer == layers.layers - 1) return arrays.y;
  if (!layers.reserve) return workspace.between[layer % WorkspaceLayout::kArrays];
  return OutputInReserve(layers, static_cast<char*>(arrays.reserve), layer);
}

ForwardArrays LayerArrays(const Layers& layers, const ForwardArrays& arrays,
                          const WorkspaceLayout& workspace, int64_t layer) {
  ForwardArrays own = OfLayer(layers, arrays, workspace, layer);
  if (layer > 0) own.x = ForwardOutput(layers, arrays, workspace, layer - 1);
  own.y = ForwardOutput(layers, arrays, workspace, layer);
  own.hn = HiddenAt(layers, arrays.hn, layer);
  own.cn = CellAt(layers, arrays.cn, layer);
  own.reserve =
      layers.reserve ? ReserveAt(layers, static_cast<char*>(arrays.reserve), layer) : nullptr;
  return own;
}

BackwardArrays LayerArrays(const Layers& layers, const BackwardArrays& arrays,
                           const WorkspaceLayout& workspace, int64_t layer) {
  const bool top = layer == layers.layers - 1;
  const auto* reserve = static_cast<const char*>(arrays.reserve);
  // Gradient of the input of a layer above the first.
  const auto gradient = [&](int64_t upper) {
    return workspace.between[(upper - 1) % WorkspaceLayout::kArrays];
  };
  BackwardArrays own = OfLayer(layers, arrays, workspace, layer);
  if (layer > 0) own.x = OutputInReserve(layers, reserve, layer - 1);
  if (!top) own.y = OutputInReserve(layers, reserve, layer);
  own.reserve = ReserveAt(layers, reserve, layer);
  if (!top) own.dy = gradient(layer + 1);
  own.dhn = HiddenAt(layers, arrays.dhn, layer);
  own.dcn = CellAt(layers, arrays.dcn, layer);
  if (layer > 0) own.dx = gradient(layer);
  own.dh0 = HiddenAt(layers, arrays.dh0, layer);
  own.dc0 = CellAt(layers, arrays.dc0, layer);
  own.gradients += layer * layers.directions;
  return own;
}

// ---- checks of arrays ---------------------------------------------------------------------------

void Expect(const char* name, const void* array, int64_t alignment,
            std::optional<int64_t> index = std::nullopt) {
  const auto text = [&] {
    return name + (index ? "[" + std::to_string(*index) + "]" : std::string());
  };
  FASTRNN_EXPECTS(array != nullptr, text() + " is null, expected an array");
  FASTRNN_EXPECTS(reinterpret_cast<uintptr_t>(array) % static_cast<uintptr_t>(alignment) == 0,
                  text() + " is not aligned, expected an address that is a multiple of " +
                      std::to_string(alignment));
}

// `member` is that of Parameter for these pointers.
template <class Pointers, class Member>
void ExpectParameters(const Layers& layers, const char* name, const Pointers* pointers,
                      Member member) {
  Expect(name, pointers, alignof(Pointers));
  const std::vector<Parameter> parameters = ParametersOf(layers);
  int64_t index = 0;
  for (int64_t i = 0; i < layers.layers * layers.directions; ++i) {
    for (const Parameter& parameter : parameters) {
      Expect(name, pointers[i].*(parameter.*member), SizeOf(layers.dtype), index++);
    }
  }
}

// Checks the arrays of both passes.
template <class Arrays>
void CheckInputs(const Layers& layers, const Arrays& arrays) {
  const int64_t size = SizeOf(layers.dtype);
  Expect("x", arrays.x, size);
  Expect("h_0", arrays.h0, size);
  if (layers.has_c()) Expect("c_0", arrays.c0, size);
  if (arrays.lengths != nullptr) Expect("lengths", arrays.lengths, sizeof(int32_t));
  if (arrays.seed != nullptr) Expect("seed", arrays.seed, sizeof(float));
  Expect("output", arrays.y, size);
  if (ReserveWords(layers) > 0) Expect("reserve", arrays.reserve, AccumulatorSize(layers.dtype));
  Expect("workspace", arrays.workspace, kWorkspaceAlignment);
  ExpectParameters(layers, "weights", arrays.weights, &Parameter::weight);
}

void Check(const Layers& layers, const ForwardArrays& arrays) {
  CheckInputs(layers, arrays);
  Expect("h_n", arrays.hn, SizeOf(layers.dtype));
  if (layers.has_c()) Expect("c_n", arrays.cn, SizeOf(layers.dtype));
}

void Check(const Layers& layers, const BackwardArrays& arrays) {
  FASTRNN_EXPECTS(layers.reserve, "backward needs the reserve of a forward call that kept one");
  const int64_t size = SizeOf(layers.dtype);
  CheckInputs(layers, arrays);
  Expect("d_output", arrays.dy, size);
  Expect("d_h_n", arrays.dhn, size);
  Expect("gradient of x", arrays.dx, size);
  Expect("gradient of h_0", arrays.dh0, size);
  if (layers.has_c()) {
    Expect("d_c_n", arrays.dcn, size);
    Expect("gradient of c_0", arrays.dc0, size);
  }
  ExpectParameters(layers, "gradient of weights", arrays.gradients, &Parameter::gradient);
}

}  // namespace

// ---- plans --------------------------------------------------------------------------------------

Plan::Plan(const Layers& layers) : layers_(layers) {
  Validate(layers);
  const Backend& backend = BackendOf(layers.device);
  reserve_bytes_ = static_cast<size_t>(layers.rows() * ReserveWords(layers) * 4);
  first_ = backend.MakePlan(layers);
  if (layers.layers > 1) upper_ = backend.MakePlan(layers.At(1));
}

Plan::~Plan() = default;

size_t Plan::workspace_bytes(Pass pass) const {
  return WorkspaceLayout(layers_, pass, LayerBytes(pass), nullptr).bytes;
}

size_t Plan::LayerBytes(Pass pass) const {
  const size_t first = first_->WorkspaceBytes(pass);
  return upper_ == nullptr ? first : std::max(first, upper_->WorkspaceBytes(pass));
}

std::string Plan::Reason() const {
  std::string text;
  const auto add = [&](const char* layer, const LayerPlan& plan) {
    text += std::string(layer) + "forward: " + plan.Reason(Pass::kForward) + "\n";
    if (layers_.reserve)
      text += std::string(layer) + "backward: " + plan.Reason(Pass::kBackward) + "\n";
  };
  add(upper_ == nullptr ? "" : "first layer, ", *first_);
  if (upper_ != nullptr) add("layers above, ", *upper_);
  return text;
}

void Plan::Forward(const ForwardArrays& arrays) const {
  Check(layers_, arrays);
  const WorkspaceLayout workspace(layers_, Pass::kForward, LayerBytes(Pass::kForward),
                                  arrays.workspace);
  for (int64_t layer = 0; layer < layers_.layers; ++layer) {
    At(layer).Forward(LayerArrays(layers_, arrays, workspace, layer));
  }
}

void Plan::Backward(const BackwardArrays& arrays) const {
  Check(layers_, arrays);
  const WorkspaceLayout workspace(layers_, Pass::kBackward, LayerBytes(Pass::kBackward),
                                  arrays.workspace);
  for (int64_t layer = layers_.layers - 1; layer >= 0; --layer) {
    At(layer).Backward(LayerArrays(layers_, arrays, workspace, layer));
  }
}

// ---- plans that are kept ------------------------------------------------------------------------

namespace {

// All fields of a description.
static_assert(sizeof(Algorithm) == 76 && sizeof(Layers) == 208, "is a field missing in Tied()?");
auto Tied(const Layers& l) {
  const Algorithm& a = l.algorithm;
  return std::tie(l.mode, l.dtype, l.device, l.device_index, l.steps, l.batch, l.input, l.hidden,
                  l.projection, l.directions, l.layers, l.clip.low, l.clip.high, l.clip.nan,
                  l.noise.zoneout_outputs, l.noise.zoneout_states, l.noise.drop_states,
                  l.layer_norm, l.reserve, l.tf32, l.threads, a.kind, a.row_tiles,
                  a.backward_row_tiles, a.batch_tiles, a.groups, a.directions, a.split, a.cluster,
                  a.shared_slices, a.tagged);
}

struct Less {
  bool operator()(const Layers& a, const Layers& b) const { return Tied(a) < Tied(b); }
};

// The least recently used plan is dropped; the most recently used one is in front.
class PlanCache {
 public:
  std::shared_ptr<const Plan> Get(const Layers& layers) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = known_.find(layers);
    if (found != known_.end()) {
      plans_.splice(plans_.begin(), plans_, found->second);
      return plans_.front();
    }
    plans_.push_front(std::make_shared<const Plan>(layers));
    known_[layers] = plans_.begin();
    ++made_;
    if (plans_.size() > kMostPlans) {
      known_.erase(plans_.back()->layers());
      plans_.pop_back();
    }
    return plans_.front();
  }

  int64_t made() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return made_;
  }

  std::mutex& mutex() { return mutex_; }

 private:
  // A plan has some hundred bytes, and on the CPU oneDNN's products.
  static constexpr size_t kMostPlans = 256;

  std::mutex mutex_;
  std::list<std::shared_ptr<const Plan>> plans_;
  std::map<Layers, std::list<std::shared_ptr<const Plan>>::iterator, Less> known_;
  int64_t made_ = 0;
};

// Never destroyed: at the end of the process, the libraries that plans use may be gone already.
PlanCache& Cache() {
  static auto* const cache = new PlanCache;
  // Otherwise a forked child could find the lock held by a thread that it does not have.
  [[maybe_unused]] static const int registered =
      pthread_atfork([] { Cache().mutex().lock(); }, [] { Cache().mutex().unlock(); },
                     [] { Cache().mutex().unlock(); });
  return *cache;
}

}  // namespace

std::shared_ptr<const Plan> MakePlan(const Layers& layers) {
  Layers complete = layers;
  const int threads = BackendOf(layers.device).Threads();
  complete.threads = layers.threads > 0 ? std::min(layers.threads, threads) : threads;
  return Cache().Get(complete);
}

int64_t PlansMade() { return Cache().made(); }

}  // namespace fastrnn
