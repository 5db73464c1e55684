// cuBLAS, found at run time, in this order:
//   1. the library that FASTRNN_CUBLAS names;
//   2. one that MXNet or PyTorch has loaded into the process;
//   3. the system's, newest first.
// Its version must be 11 or newer. Linking against one instead would bind a wheel to the toolkit
// that built it, and load a second one into MXNet's process.
#include "blas.h"

#include <dlfcn.h>

#include <cstdlib>
#include <limits>
#include <map>
#include <string>
#include <utility>

#include "../../error.h"
#include "../../rnn.h"
#include "memory.h"

namespace fastrnn {
namespace cuda {
namespace {

// What cuBLAS recommends for Hopper, more than for any other; cuBLAS requires this alignment.
// Emulated builds fill what they allocate, and need less.
#if !defined(FASTRNN_CUBLAS_WORKSPACE_BYTES)
#define FASTRNN_CUBLAS_WORKSPACE_BYTES (32 << 20)
#endif
constexpr size_t kWorkspaceBytes = FASTRNN_CUBLAS_WORKSPACE_BYTES;
constexpr size_t kCublasAlignment = 256;

constexpr int kOldestMajorVersion = 11;
const char* const kLibraries[] = {"libcublas.so.13", "libcublas.so.12", "libcublas.so.11"};

// The part of cuBLAS's ABI that is used, from its documentation. Enumerations are ints.
using Handle = void*;
constexpr int kSuccess = 0;
constexpr int kNoTranspose = 0, kTransposed = 1;
constexpr int kFloat32 = 0, kFloat16 = 2, kBfloat16 = 14;  // CUDA_R_32F and so on
constexpr int kComputeFloat32 = 68;  // CUBLAS_COMPUTE_32F: IEEE products and sums
constexpr int kComputeTf32 = 77;     // CUBLAS_COMPUTE_32F_FAST_TF32
constexpr int kSumsInFloat32 = 16;   // CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION
constexpr int kDefaultAlgorithm = -1;
constexpr int kMajorVersion = 0;  // of libraryPropertyType

struct Library {
  int (*get_property)(int type, int* value);
  int (*create)(Handle* handle);
  int (*destroy)(Handle handle);
  int (*set_math_mode)(Handle handle, int mode);
  int (*set_stream)(Handle handle, void* stream);
  int (*set_workspace)(Handle handle, void* workspace, size_t bytes);
  int (*gemm)(Handle handle, int transpose_a, int transpose_b, int m, int n, int k,
              const void* alpha, const void* a, int a_type, int lda, const void* b, int b_type,
              int ldb, const void* beta, void* c, int c_type, int ldc, int compute_type,
              int algorithm);
};

template <class Function>
bool Find(void* library, const char* name, Function** function) {
  *function = reinterpret_cast<Function*>(dlsym(library, name));
  return *function != nullptr;
}

// If the library cannot be used, appends the reason to `tried`, and returns false.
bool Load(const char* name, int flags, Library* library, std::string* tried) {
  const auto refuse = [&](const std::string& reason) {
    *tried += std::string("\n  ") + name + ": " + reason;
    return false;
  };
  void* loaded = dlopen(name, RTLD_NOW | RTLD_LOCAL | flags);
  if (loaded == nullptr) {
    const char* reason = dlerror();
    return refuse(flags & RTLD_NOLOAD ? "not in this process" : reason);
  }
  const bool complete = Find(loaded, "cublasGetProperty", &library->get_property) &&
                        Find(loaded, "cublasCreate_v2", &library->create) &&
                        Find(loaded, "cublasDestroy_v2", &library->destroy) &&
                        Find(loaded, "cublasSetMathMode", &library->set_math_mode) &&
                        Find(loaded, "cublasSetStream_v2", &library->set_stream) &&
                        Find(loaded, "cublasSetWorkspace_v2", &library->set_workspace) &&
                        Find(loaded, "cublasGemmEx", &library->gemm);
  if (!complete) return refuse("lacks functions of cuBLAS");
  int major = 0;
  if (library->get_property(kMajorVersion, &major) != kSuccess || major < kOldestMajorVersion) {
    return refuse("says that its version is " + std::to_string(major) + ", expected " +
                  std::to_string(kOldestMajorVersion) + " or newer");
  }
  return true;
}

Library LoadAny() {
  Library library;
  std::string tried;
  if (const char* path = std::getenv("FASTRNN_CUBLAS")) {
    if (Load(path, 0, &library, &tried)) return library;
    throw LibraryError("FASTRNN_CUBLAS names no usable cuBLAS:" + tried, __FILE__, __LINE__);
  }
  for (int flags : {RTLD_NOLOAD, 0}) {
    for (const char* name : kLibraries) {
      if (Load(name, flags, &library, &tried)) return library;
    }
  }
  throw LibraryError("no usable cuBLAS was found (FASTRNN_CUBLAS may name one); tried:" + tried,
                     __FILE__, __LINE__);
}

// Loaded once in a process. If that fails, the next call tries again.
const Library& Cublas() {
  static const Library library = LoadAny();
  return library;
}

void Try(int status, const char* call) {
  if (status != kSuccess) {
    throw LibraryError(std::string(call) + " failed with status " + std::to_string(status),
                       __FILE__, __LINE__);
  }
}

// One handle for each device and thread, and for each stream that the thread uses at once: threads
// must not share a handle, and a handle has one stream.
class Handles {
 public:
  ~Handles() {
    for (const auto& [key, handle] : handles_) Cublas().destroy(handle);
  }
  Handle Get(int device, int lane, void* stream) {
    const auto found = handles_.find({device, lane});
    if (found != handles_.end()) return found->second;
    FASTRNN_EXPECTS(!IsCapturing(device, stream),
                    "stream is being captured, when cuBLAS cannot be set up for this thread: "
                    "make the same call once before, in the same thread");
    Handle handle = nullptr;
    Try(Cublas().create(&handle), "cublasCreate");
    // By default, cuBLAS may add up the parts of a 16-bit result in 16 bits.
    const int status = Cublas().set_math_mode(handle, kSumsInFloat32);
    if (status != kSuccess) Cublas().destroy(handle);
    Try(status, "cublasSetMathMode");
    return handles_[{device, lane}] = handle;
  }

 private:
  std::map<std::pair<int, int>, Handle> handles_;
};

Handle ThreadsHandle(int device, int lane, void* stream) {
  Cublas();  // so that it outlives the thread's handles
  static thread_local Handles handles;
  return handles.Get(device, lane, stream);
}

int TypeOf(DType dtype) {
  if (dtype == DType::kFloat32) return kFloat32;
  return dtype == DType::kFloat16 ? kFloat16 : kBfloat16;
}

int ToInt(const char* what, int64_t value) {
  FASTRNN_EXPECTS(value <= std::numeric_limits<int>::max(),
                  std::string(what) + " of a matrix product is " + std::to_string(value) +
                      ", which is more than cuBLAS can take");
  return static_cast<int>(value);
}

}  // namespace

size_t Blas::WorkspaceBytes() { return kWorkspaceBytes + kCublasAlignment; }

Blas::Blas(int device, void* stream, void* workspace, bool tf32, int lane)
    : handle_(ThreadsHandle(device, lane, stream)), tf32_(tf32) {
  const auto address = reinterpret_cast<uintptr_t>(workspace);
  const uintptr_t aligned = (address + kCublasAlignment - 1) / kCublasAlignment * kCublasAlignment;
  // In this order: setting the stream resets the workspace.
  Try(Cublas().set_stream(handle_, stream), "cublasSetStream");
  Try(Cublas().set_workspace(handle_, reinterpret_cast<void*>(aligned), kWorkspaceBytes),
      "cublasSetWorkspace");
}

// cuBLAS is column-major, and a row-major matrix is its transpose there: c' = b' * a'.
void Blas::Gemm(int64_t m, int64_t n, int64_t k, Matrix a, Matrix b, float beta, Product c) {
  const float alpha = 1.0f;
  const auto operation = [](const Matrix& matrix) {
    return matrix.transpose == Transpose::kYes ? kTransposed : kNoTranspose;
  };
  const bool tf32 = tf32_ && a.dtype == DType::kFloat32;
  Try(Cublas().gemm(
          handle_, operation(b), operation(a), ToInt("a size", n), ToInt("a size", m),
          ToInt("a size", k), &alpha, b.data, TypeOf(b.dtype), ToInt("a stride", b.stride), a.data,
          TypeOf(a.dtype), ToInt("a stride", a.stride), &beta, c.data, TypeOf(c.dtype),
          ToInt("a stride", c.stride), tf32 ? kComputeTf32 : kComputeFloat32, kDefaultAlgorithm),
      "cublasGemmEx");
}

}  // namespace cuda
}  // namespace fastrnn
