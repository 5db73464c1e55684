#include "interface.h"

#include <dlfcn.h>
#include <mxnet/c_api.h>
#include <sys/mman.h>
#include <unistd.h>

#include <memory>
#include <string>

#include "../../error.h"

namespace fastrnn {
namespace operators {
namespace {

template <class Function>
Function* Find(void* library, const char* name) {
  void* const found = dlsym(library, name);
  if (found == nullptr) {
    throw LibraryError(std::string("libmxnet has no ") + name, __FILE__, __LINE__);
  }
  return reinterpret_cast<Function*>(found);
}

void* Loaded() {
  void* const library = dlopen("libmxnet.so", RTLD_NOW | RTLD_NOLOAD);
  if (library != nullptr) return library;
  throw LibraryError("this process has no libmxnet.so", __FILE__, __LINE__);
}

struct Interface {
  void* const library = Loaded();
  decltype(MXGetLastError)* const last_error =
      Find<decltype(MXGetLastError)>(library, "MXGetLastError");
  decltype(MXAutogradIsRecording)* const is_recording =
      Find<decltype(MXAutogradIsRecording)>(library, "MXAutogradIsRecording");
  decltype(MXNDArrayCreateEx64)* const create =
      Find<decltype(MXNDArrayCreateEx64)>(library, "MXNDArrayCreateEx64");
  decltype(MXNDArrayGetData)* const get_data =
      Find<decltype(MXNDArrayGetData)>(library, "MXNDArrayGetData");
  decltype(MXNDArrayFree)* const free = Find<decltype(MXNDArrayFree)>(library, "MXNDArrayFree");
};

const Interface& Mxnet() {
  static const Interface interface;
  return interface;
}

void Check(int status) {
  if (status != 0) throw LibraryError(Mxnet().last_error(), __FILE__, __LINE__);
}

// Asks the system to back new memory with huge pages: one page fault for 2 MiB instead of 512. A
// system without them refuses, which changes nothing. NumPy does so from the same size on.
void AskForHugePages(void* data, size_t bytes) {
  constexpr size_t kLeast = size_t{1} << 22;
  if (bytes < kLeast) return;
  static const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  size_t space = bytes;
  if (std::align(page, page, data, space) != nullptr) madvise(data, space, MADV_HUGEPAGE);
}

}  // namespace

void FindInterface() { Mxnet(); }

bool IsRecording() {
  bool recording = false;
  Check(Mxnet().is_recording(&recording));
  return recording;
}

Array::Array(const mxnet::ext::MXContext& context, size_t bytes) : bytes_(bytes) {
  constexpr int kCpu = 1, kGpu = 2;  // MXNet's numbers
  // Numbers of 8 bytes, because MXNet counts them in 31 bits.
  const auto size = static_cast<int64_t>((bytes + sizeof(double) - 1) / sizeof(double));
  const int device = context.dev_type == "gpu" ? kGpu : kCpu;
  constexpr int kAtOnce = 0;
  Check(Mxnet().create(&size, 1, device, context.dev_id, kAtOnce, mxnet::ext::kFloat64, &handle_));
  const int status = Mxnet().get_data(handle_, &data_);
  if (status != 0) Mxnet().free(handle_);
  Check(status);
  if (device == kCpu) AskForHugePages(data_, bytes);
}

Array::~Array() { Mxnet().free(handle_); }

}  // namespace operators
}  // namespace fastrnn
