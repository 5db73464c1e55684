// A library in the place of cuDNN, with the part of its ABI that recurrent layers need. It checks
// descriptors, order, sizes and alignment as cuDNN's documentation asks for, and hands the
// arithmetic to a function of the test's. All memory is the host's.
//
// Its weight space has gaps and goes from the last gate to the first, its reserve space holds what
// the passes leave there for each other, and it overwrites the whole workspace: who relies on more
// than the documentation says, fails.
#include "fake_cudnn.h"

#include <map>
#include <memory>
#include <string>

namespace fake {
namespace {

thread_local size_t version = 90100;
thread_local Arithmetic arithmetic = nullptr;
thread_local std::map<const void*, std::unique_ptr<Object>> live;
thread_local std::string failing_call, last_error;
thread_local int failing_status = 0;

bool IsVersion8() { return version < 90000; }

int BadParameterStatus() { return IsVersion8() ? 3 : 2000; }

int BadParameter(const char* wanted) {
  last_error = std::string("wanted ") + wanted;
  return BadParameterStatus();
}

int NotSupported() { return IsVersion8() ? 9 : 3000; }

#define ENTER() \
  if (failing_call == __func__) return failing_status
#define WANT(condition) \
  if (!(condition)) return BadParameter(#condition)

template <class T>
T* Get(void* object) {
  const auto found = live.find(object);
  return found == live.end() ? nullptr : dynamic_cast<T*>(found->second.get());
}

// As above, and null also for a descriptor that was created but never set.
template <class T>
T* GetSet(void* object) {
  T* found = Get<T>(object);
  return found != nullptr && found->dtype >= 0 ? found : nullptr;
}

template <class T>
int Create(void** object) {
  WANT(object != nullptr);
  auto created = std::make_unique<T>();
  *object = created.get();
  live[*object] = std::move(created);
  return 0;
}

template <class T>
int Destroy(void* object) {
  WANT(Get<T>(object) != nullptr);
  live.erase(object);
  return 0;
}

// Checks what the three passes have in common, and fills in what they say of it.
struct Call {
  void *handle, *rnn, *x_data, *y_data, *states;
  const int* lengths;
  size_t weight_bytes;
  const void* weights;
  size_t workspace_bytes;
  void* workspace;
  size_t reserve_bytes;
  void* reserve;

  int Check(bool training, Pass* pass, std::vector<int64_t>* places) const;
  Reserve reserved() const { return Reserve(*Get<Rnn>(rnn), *Get<Data>(x_data), reserve); }
};

int Call::Check(bool training, Pass* pass, std::vector<int64_t>* places) const {
  const Handle* h = Get<Handle>(handle);
  const Rnn* r = GetSet<Rnn>(rnn);
  const Data *x = GetSet<Data>(x_data), *y = GetSet<Data>(y_data);
  const Tensor* s = GetSet<Tensor>(states);
  WANT(h && r && x && y && s);
  WANT(x->dtype == r->dtype && y->dtype == r->dtype && s->dtype == r->dtype);
  WANT(x->size == r->inputs && y->size == r->directions * r->hidden);
  WANT(x->steps == y->steps && x->rows == y->rows && x->lengths == y->lengths);
  WANT(x->layout == y->layout && (x->layout == kPacked || r->padded));
  WANT(s->shape == std::vector<int>({r->layers * r->directions, x->rows, r->hidden}));
  WANT(s->strides == std::vector<int>({x->rows * r->hidden, r->hidden, 1}));
  // Version 9 may look at the lengths on the host alone.
  WANT(lengths != nullptr || !IsVersion8());
  WANT(lengths == nullptr || std::equal(x->lengths.begin(), x->lengths.end(), lengths));
  if (x->IsRagged() && (r->algorithm == kSmallHidden || x->layout == kPacked)) {
    return NotSupported();
  }
  WANT(r->algorithm != kPersistDynamic || r->built_rows == x->rows);
  WANT(weight_bytes == PlaceWeights(*r, places) && IsAligned(weights));
  WANT(workspace_bytes >= kWorkspaceBytes[training] && IsAligned(workspace));
  WANT(!training || (reserve_bytes >= reserved().Bytes() && IsAligned(reserve)));
  std::memset(workspace, 0xff, workspace_bytes);
  *pass = Describe(*r, *x, *y);
  pass->stream = h->stream;
  pass->places = places->data();
  return 0;
}

int Run(const Pass& pass) {
  if (arithmetic != nullptr && arithmetic(&pass) == 0) return 0;
  last_error = "the test's arithmetic failed";
  return IsVersion8() ? 8 : 5000;
}

}  // namespace
}  // namespace fake

using namespace fake;  // the functions below are C's, in no namespace

extern "C" {

void fakeSetVersion(size_t number) { version = number; }
void fakeSetArithmetic(Arithmetic function) { arithmetic = function; }
void fakeFail(const char* call, int status) {
  failing_call = call;
  failing_status = status;
}
size_t fakeLive() { return live.size(); }

size_t cudnnGetVersion() { return version; }
const char* cudnnGetErrorString(int status) {
  if (status == BadParameterStatus()) return "CUDNN_STATUS_BAD_PARAM";
  return status == NotSupported() ? "CUDNN_STATUS_NOT_SUPPORTED" : "CUDNN_STATUS_OTHER";
}
void cudnnGetLastErrorString(char* message, size_t size) {
  std::strncpy(message, last_error.c_str(), size - 1);
  message[size - 1] = 0;
}

#define CREATE_AND_DESTROY(name, type)   \
  int cudnnCreate##name(void** object) { \
    ENTER();                             \
    return Create<type>(object);         \
  }                                      \
  int cudnnDestroy##name(void* object) { \
    ENTER();                             \
    return Destroy<type>(object);        \
  }
CREATE_AND_DESTROY(, Handle)
CREATE_AND_DESTROY(TensorDescriptor, Tensor)
CREATE_AND_DESTROY(DropoutDescriptor, Dropout)
CREATE_AND_DESTROY(RNNDescriptor, Rnn)
CREATE_AND_DESTROY(RNNDataDescriptor, Data)

int cudnnSetStream(void* handle, void* stream) {
  ENTER();
  WANT(Get<Handle>(handle) != nullptr);
  Get<Handle>(handle)->stream = stream;
  return 0;
}

int cudnnSetTensorNdDescriptor(void* tensor, int dtype, int count, const int* shape,
                               const int* strides) {
  ENTER();
  Tensor* t = Get<Tensor>(tensor);
  WANT(t != nullptr && IsDtype(dtype) && count >= 3 && count <= 8);
  t->dtype = dtype;
  t->shape.assign(shape, shape + count);
  t->strides.assign(strides, strides + count);
  return 0;
}

int cudnnGetTensorNdDescriptor(void* tensor, int wanted, int* dtype, int* count, int* shape,
                               int* strides) {
  ENTER();
  const Tensor* t = GetSet<Tensor>(tensor);
  WANT(t != nullptr && dtype && count && shape && strides);
  *dtype = t->dtype;
  *count = static_cast<int>(t->shape.size());
  std::copy_n(t->shape.begin(), std::min(wanted, *count), shape);
  std::copy_n(t->strides.begin(), std::min(wanted, *count), strides);
  return 0;
}

int cudnnSetDropoutDescriptor(void* dropout, void* handle, float probability, void* states,
                              size_t bytes, unsigned long long seed) {
  ENTER();
  Dropout* d = Get<Dropout>(dropout);
  WANT(d != nullptr && Get<Handle>(handle) != nullptr);
  WANT(probability == 0 && states == nullptr && bytes == 0 && seed == 0);
  d->dtype = kFloat;
  return 0;
}

int cudnnSetRNNDescriptor_v8(void* rnn, int algorithm, int cell, int bias, int direction,
                             int input_mode, int dtype, int precision, int math, int32_t inputs,
                             int32_t hidden, int32_t projection, int32_t layers, void* dropout,
                             uint32_t flags) {
  ENTER();
  Rnn* r = Get<Rnn>(rnn);
  WANT(r != nullptr && GetSet<Dropout>(dropout) != nullptr);
  WANT(algorithm >= 0 && algorithm < kAlgorithms && cell >= kRelu && cell <= kGru);
  WANT(bias == kDoubleBias && input_mode == kLinearInput && (direction & ~1) == 0);
  WANT(IsDtype(dtype) && precision == kFloat && flags <= 1);
  WANT(math == kDefaultMath || math == (dtype == kFloat ? kFmaMath : kTensorMath) ||
       math == kConvertingMath);
  WANT(inputs > 0 && hidden > 0 && projection == hidden && layers > 0);
  r->algorithm = algorithm;
  r->cell = cell;
  r->dtype = dtype;
  r->math = math;
  r->directions = 1 + direction;
  r->padded = static_cast<int>(flags);
  r->inputs = inputs;
  r->hidden = hidden;
  r->layers = layers;
  r->built_rows = 0;
  return 0;
}

int cudnnBuildRNNDynamic(void* handle, void* rnn, int rows) {
  ENTER();
  Rnn* r = GetSet<Rnn>(rnn);
  WANT(Get<Handle>(handle) && r && r->algorithm == kPersistDynamic && rows > 0);
  r->built_rows = rows;
  return 0;
}

int cudnnSetRNNDataDescriptor(void* data, int dtype, int layout, int steps, int rows, int size,
                              const int* lengths, void* fill) {
  ENTER();
  Data* d = Get<Data>(data);
  WANT(d != nullptr && IsDtype(dtype) && (layout == kUnpacked || layout == kPacked));
  WANT(steps > 0 && rows > 0 && size > 0 && lengths != nullptr);
  const auto is_length = [&](int length) { return length >= 0 && length <= steps; };
  WANT(std::all_of(lengths, lengths + rows, is_length));
  const char zero[sizeof(float)] = {};
  WANT(fill == nullptr || std::memcmp(fill, zero, ItemBytes(dtype)) == 0);
  d->dtype = dtype;
  d->layout = layout;
  d->steps = steps;
  d->rows = rows;
  d->size = size;
  d->lengths.assign(lengths, lengths + rows);
  d->filled = fill != nullptr;
  return 0;
}

int cudnnGetRNNTempSpaceSizes(void* handle, void* rnn, int mode, void* x_data, size_t* workspace,
                              size_t* reserve) {
  ENTER();
  const Rnn* r = GetSet<Rnn>(rnn);
  const Data* x = GetSet<Data>(x_data);
  WANT(Get<Handle>(handle) && r && x && (mode & ~1) == 0 && workspace && reserve);
  *workspace = kWorkspaceBytes[mode];
  *reserve = mode ? Reserve(*r, *x, nullptr).Bytes() : 0;
  return 0;
}

int cudnnGetRNNWeightSpaceSize(void* handle, void* rnn, size_t* bytes) {
  ENTER();
  const Rnn* r = GetSet<Rnn>(rnn);
  WANT(Get<Handle>(handle) && r && bytes);
  std::vector<int64_t> places;
  *bytes = PlaceWeights(*r, &places);
  return 0;
}

int cudnnGetRNNWeightParams(void* handle, void* rnn, int32_t layer, size_t bytes,
                            const void* weights, int32_t linear, void* matrix_tensor, void** matrix,
                            void* bias_tensor, void** bias) {
  ENTER();
  const Rnn* r = GetSet<Rnn>(rnn);
  Tensor *m = Get<Tensor>(matrix_tensor), *b = Get<Tensor>(bias_tensor);
  WANT(Get<Handle>(handle) && r && m && b && matrix && bias && IsAligned(weights));
  WANT(layer >= 0 && layer < r->layers * r->directions);
  WANT(linear >= 0 && linear < 2 * r->Gates());
  std::vector<int64_t> places;
  WANT(bytes == PlaceWeights(*r, &places));
  const int64_t* place = &places[(layer * 2 * r->Gates() + linear) * 2];
  char* base = static_cast<char*>(const_cast<void*>(weights));
  *matrix = base + place[0];
  *bias = base + place[1];
  const int columns = r->Columns(layer, linear);
  m->dtype = b->dtype = r->dtype;
  m->shape = {1, r->hidden, columns};
  m->strides = {r->hidden * columns, columns, 1};
  b->shape = {1, r->hidden, 1};
  b->strides = {r->hidden, 1, 1};
  return 0;
}

int cudnnRNNForward(void* handle, void* rnn, int mode, const int* lengths, void* x_data,
                    const void* x, void* y_data, void* y, void* h_tensor, const void* hx, void* hy,
                    void* c_tensor, const void* cx, void* cy, size_t weight_bytes,
                    const void* weights, size_t workspace_bytes, void* workspace,
                    size_t reserve_bytes, void* reserve) {
  ENTER();
  WANT((mode & ~1) == 0);
  const Call call = {handle,       rnn,     x_data,          y_data,    h_tensor,      lengths,
                     weight_bytes, weights, workspace_bytes, workspace, reserve_bytes, reserve};
  Pass pass;
  std::vector<int64_t> places;
  if (const int status = call.Check(mode == 1, &pass, &places)) return status;
  WANT(IsAligned(x) && IsAligned(y) && IsAligned(hy));
  WANT(pass.cell == kLstm ? c_tensor == h_tensor && IsAligned(cy) : !cx && !cy);
  pass.x = x;
  pass.hx = hx;
  pass.cx = cx;
  pass.weights = weights;
  pass.y = y;
  pass.hy = hy;
  pass.cy = cy;
  if (const int status = Run(pass)) return status;
  if (mode == 0) return 0;
  Reserve kept = call.reserved();
  kept.Keep(Reserve::kX, x);
  kept.Keep(Reserve::kHx, hx);
  kept.Keep(Reserve::kCx, cx);
  kept.Keep(Reserve::kY, y);
  kept.SetStage(Stage::kForward);
  return 0;
}

int cudnnRNNBackwardData_v8(void* handle, void* rnn, const int* lengths, void* y_data,
                            const void* y, const void* dy, void* x_data, void* dx, void* h_tensor,
                            const void* hx, const void* dhy, void* dhx, void* c_tensor,
                            const void* cx, const void* dcy, void* dcx, size_t weight_bytes,
                            const void* weights, size_t workspace_bytes, void* workspace,
                            size_t reserve_bytes, void* reserve) {
  ENTER();
  const Call call = {handle,       rnn,     x_data,          y_data,    h_tensor,      lengths,
                     weight_bytes, weights, workspace_bytes, workspace, reserve_bytes, reserve};
  Pass pass;
  std::vector<int64_t> places;
  if (const int status = call.Check(true, &pass, &places)) return status;
  Reserve kept = call.reserved();
  WANT(kept.IsAt(Stage::kForward) && kept.Has(Reserve::kY, y));
  WANT(kept.Has(Reserve::kHx, hx) && kept.Has(Reserve::kCx, cx));
  WANT(IsAligned(dy) && IsAligned(dx) && IsAligned(dhx));
  WANT(pass.cell == kLstm ? c_tensor == h_tensor && IsAligned(dcx) : !dcy && !dcx);
  pass.stage = 1;
  pass.x = kept.Find(Reserve::kX);
  pass.hx = hx;
  pass.cx = cx;
  pass.weights = weights;
  pass.dy = dy;
  pass.dhy = dhy;
  pass.dcy = dcy;
  pass.dx = dx;
  pass.dhx = dhx;
  pass.dcx = dcx;
  if (const int status = Run(pass)) return status;
  kept.KeepWeights(weights);
  kept.Keep(Reserve::kDy, dy);
  kept.Keep(Reserve::kDhy, dhy);
  kept.Keep(Reserve::kDcy, dcy);
  kept.SetStage(Stage::kBackwardData);
  return 0;
}

int cudnnRNNBackwardWeights_v8(void* handle, void* rnn, int mode, const int* lengths, void* x_data,
                               const void* x, void* h_tensor, const void* hx, void* y_data,
                               const void* y, size_t weight_bytes, void* dweights,
                               size_t workspace_bytes, void* workspace, size_t reserve_bytes,
                               void* reserve) {
  ENTER();
  if (mode != kAdd) return NotSupported();
  const Call call = {handle,       rnn,      x_data,          y_data,    h_tensor,      lengths,
                     weight_bytes, dweights, workspace_bytes, workspace, reserve_bytes, reserve};
  Pass pass;
  std::vector<int64_t> places;
  if (const int status = call.Check(true, &pass, &places)) return status;
  Reserve kept = call.reserved();
  WANT(kept.IsAt(Stage::kBackwardData) && kept.Has(Reserve::kX, x));
  WANT(kept.Has(Reserve::kHx, hx) && kept.Has(Reserve::kY, y));
  pass.stage = 2;
  pass.x = x;
  pass.hx = hx;
  pass.cx = kept.Find(Reserve::kCx);
  pass.weights = kept.Weights();
  pass.dy = kept.Find(Reserve::kDy);
  pass.dhy = kept.Find(Reserve::kDhy);
  pass.dcy = kept.Find(Reserve::kDcy);
  pass.dweights = dweights;
  kept.SetStage(Stage::kBackwardWeights);
  return Run(pass);
}

}  // extern "C"
