// What the stand-in of cuDNN in fake_cudnn.cc is made of: descriptors, and where things are in the
// spaces that cuDNN asks its caller for.
#ifndef FASTRNN_TESTS_BENCH_FAKE_CUDNN_H_
#define FASTRNN_TESTS_BENCH_FAKE_CUDNN_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace fake {

enum Type { kFloat = 0, kHalf = 2, kBfloat16 = 9 };
enum Math { kDefaultMath = 0, kTensorMath = 1, kConvertingMath = 2, kFmaMath = 3 };
enum Cell { kRelu = 0, kTanh = 1, kLstm = 2, kGru = 3 };
enum Algorithm { kPersistDynamic = 2, kSmallHidden = 3, kAlgorithms = 4 };
enum Layout { kUnpacked = 0, kPacked = 1 };
enum class Stage : int64_t { kForward = 0x5eed0001, kBackwardData, kBackwardWeights };

constexpr int kDoubleBias = 2, kLinearInput = 0, kAdd = 0;
constexpr size_t kAlignment = 16, kGap = 64;
constexpr size_t kWorkspaceBytes[] = {96, 160};  // for inference and for training

struct Object {
  virtual ~Object() = default;
  int dtype = -1;  // until it is set
};

struct Handle : Object {
  void* stream = nullptr;
};

struct Tensor : Object {
  std::vector<int> shape, strides;
};

struct Dropout : Object {};

struct Rnn : Object {
  int algorithm, cell, math, directions, padded, built_rows, inputs, hidden, layers;

  int Gates() const { return cell == kLstm ? 4 : cell == kGru ? 3 : 1; }
  int Columns(int layer, int linear) const {
    return linear >= Gates() ? hidden : layer < directions ? inputs : directions * hidden;
  }
};

struct Data : Object {
  int layout, steps, rows, size;
  std::vector<int> lengths;
  bool filled = false;

  bool IsRagged() const {
    return std::any_of(lengths.begin(), lengths.end(), [&](int length) { return length != steps; });
  }
};

inline bool IsDtype(int dtype) { return dtype == kFloat || dtype == kHalf || dtype == kBfloat16; }

inline size_t ItemBytes(int dtype) { return dtype == kFloat ? 4 : 2; }

inline bool IsAligned(const void* pointer) {
  return pointer != nullptr && reinterpret_cast<uintptr_t>(pointer) % kAlignment == 0;
}

// Where matrices and biases are, as in Pass::places. Returns the size of the whole.
inline size_t PlaceWeights(const Rnn& rnn, std::vector<int64_t>* places) {
  const int linears = 2 * rnn.Gates();
  const size_t item = ItemBytes(rnn.dtype);
  const auto round_up = [](size_t bytes) { return (bytes + kGap) / kGap * kGap; };
  places->assign(rnn.layers * rnn.directions * linears * 2, 0);
  size_t end = 0;
  for (int layer = 0; layer < rnn.layers * rnn.directions; ++layer) {
    for (int linear = linears - 1; linear >= 0; --linear) {
      int64_t* place = &(*places)[(layer * linears + linear) * 2];
      place[1] = end;
      end = round_up(end + rnn.hidden * item);
      place[0] = end;
      end = round_up(end + rnn.hidden * rnn.Columns(layer, linear) * item);
    }
  }
  return end;
}

// What a training pass keeps: a stage, and copies of arrays, of which some may be null.
class Reserve {
 public:
  enum Slot { kX, kHx, kCx, kY, kDy, kDhy, kDcy, kSlots };

  Reserve(const Rnn& rnn, const Data& x, void* space) : space_(static_cast<char*>(space)) {
    const size_t step = ItemBytes(rnn.dtype) * x.steps * x.rows;
    const size_t states = ItemBytes(rnn.dtype) * rnn.layers * rnn.directions * x.rows * rnn.hidden;
    const size_t y = step * rnn.directions * rnn.hidden;
    const size_t sizes[] = {step * rnn.inputs, states, states, y, y, states, states};
    std::copy(std::begin(sizes), std::end(sizes), sizes_);
  }
  size_t Bytes() const { return Offset(kSlots); }
  void SetStage(Stage stage) { std::memcpy(space_, &stage, sizeof(stage)); }
  bool IsAt(Stage stage) const { return std::memcmp(space_, &stage, sizeof(stage)) == 0; }
  void Keep(Slot slot, const void* data) {
    char* kept = space_ + Offset(slot);
    *kept = data != nullptr;
    if (data != nullptr) std::memcpy(kept + kGap, data, sizes_[slot]);
  }
  const void* Find(Slot slot) const {
    const char* kept = space_ + Offset(slot);
    return *kept ? kept + kGap : nullptr;
  }
  // The weights themselves stay where they are until the gradients are there.
  void KeepWeights(const void* weights) {
    std::memcpy(space_ + sizeof(Stage), &weights, sizeof(weights));
  }
  const void* Weights() const {
    const void* weights;
    std::memcpy(&weights, space_ + sizeof(Stage), sizeof(weights));
    return weights;
  }
  bool Has(Slot slot, const void* data) const {
    const void* kept = Find(slot);
    if (kept == nullptr || data == nullptr) return kept == data;
    return std::memcmp(kept, data, sizes_[slot]) == 0;
  }

 private:
  size_t Offset(int slot) const {
    size_t offset = kGap;
    for (int i = 0; i < slot; ++i) offset += kGap + sizes_[i];
    return offset;
  }
  char* space_;
  size_t sizes_[kSlots];
};

// What the test's function is told. It returns 0 when all is well.
struct Pass {
  int stage;  // 0: forward, 1: backward data, 2: backward weights
  int algorithm, cell, dtype, math, directions, layers, inputs, hidden, steps, rows;
  int layout, filled;  // whether the output is padded with zeros
  void* stream;
  const int* lengths;
  const int64_t* places;  // [L*D, 2*G, 2]: where matrix and bias begin, in bytes
  const void *x, *hx, *cx, *weights, *dy, *dhy, *dcy;
  void *y, *hy, *cy, *dx, *dhx, *dcx, *dweights;
};
using Arithmetic = int (*)(const Pass*);

// What the descriptors say of a pass.
inline Pass Describe(const Rnn& rnn, const Data& x, const Data& y) {
  Pass pass = {};
  pass.algorithm = rnn.algorithm;
  pass.cell = rnn.cell;
  pass.dtype = rnn.dtype;
  pass.math = rnn.math;
  pass.directions = rnn.directions;
  pass.layers = rnn.layers;
  pass.inputs = rnn.inputs;
  pass.hidden = rnn.hidden;
  pass.steps = x.steps;
  pass.rows = x.rows;
  pass.layout = x.layout;
  pass.filled = y.filled;
  pass.lengths = x.lengths.data();
  return pass;
}

}  // namespace fake

#endif  // FASTRNN_TESTS_BENCH_FAKE_CUDNN_H_
