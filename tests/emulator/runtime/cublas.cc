// A library in the place of cuBLAS, whose products are plain loops on the host. Factors are rounded
// as the tensor cores do, so that a wrong type shows. The names and numbers are those of cuBLAS's
// ABI, after its documentation.
#include <dlfcn.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <vector>

#include "control.h"
#include "cuda/runtime/device.cuh"

namespace {

using fastrnn::cuda::Bfloat16;
using fastrnn::cuda::FromFloat;
using fastrnn::cuda::Half;
using fastrnn::cuda::ToFloat;

enum Status {
  kSuccess = 0,
  kNotInitialized = 1,
  kInvalidValue = 7,
  kExecutionFailed = 13,
  kNotSupported = 15
};
enum Type { kFloat32 = 0, kFloat16 = 2, kBfloat16 = 14 };
enum Compute { kComputeFloat32 = 68, kComputeTf32 = 77 };
constexpr int kSumsInFloat32 = 16;  // a math mode

struct Handle {
  int math_mode = 0;
  void* stream = nullptr;
  char* workspace = nullptr;
  size_t workspace_bytes = 0;
};

std::atomic<int> handles{0};
thread_local int calls_until_failure = 0;  // 0: none is to fail
thread_local std::map<const void*, int> factor_uses;

bool IsToFail() { return calls_until_failure > 0 && --calls_until_failure == 0; }

float Load(const void* data, int type, int64_t index) {
  if (type == kFloat16) return ToFloat(static_cast<const Half*>(data)[index]);
  if (type == kBfloat16) return ToFloat(static_cast<const Bfloat16*>(data)[index]);
  return static_cast<const float*>(data)[index];
}

void Store(float value, void* data, int type, int64_t index) {
  if (type == kFloat16) {
    static_cast<Half*>(data)[index] = FromFloat<Half>(value);
  } else if (type == kBfloat16) {
    static_cast<Bfloat16*>(data)[index] = FromFloat<Bfloat16>(value);
  } else {
    static_cast<float*>(data)[index] = value;
  }
}

struct Factor {
  const void* data;
  int type;
  int64_t stride;
  bool transposed;
  bool tf32;
};

// The factor's `columns` columns of `rows` values, one after the other, in float32.
std::vector<float> Columns(const Factor& factor, int64_t rows, int64_t columns) {
  std::vector<float> values(rows * columns);
  for (int64_t column = 0; column < columns; ++column) {
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t index =
          factor.transposed ? row * factor.stride + column : column * factor.stride + row;
      const float value = Load(factor.data, factor.type, index);
      values[column * rows + row] =
          factor.tf32 ? __uint_as_float(fastrnn::cuda::ToTf32(value)) : value;
    }
  }
  return values;
}

struct Product {
  Handle handle;
  int64_t m, n, k;
  Factor a, b;
  float beta;
  void* c;
  int c_type;
  int64_t ldc;

  void Compute() const {
    // Somebody else's array would not survive this.
    handle.workspace[0] = handle.workspace[handle.workspace_bytes - 1] = 0x55;
    const auto left = Columns(a, m, k);
    const auto right = Columns(b, k, n);
    std::vector<float> sums;
    for (int64_t column = 0; column < n; ++column) {
      sums.assign(m, 0.0f);
      for (int64_t i = 0; i < k; ++i) {
        const float value = right[column * k + i];
        for (int64_t row = 0; row < m; ++row) sums[row] += left[i * m + row] * value;
      }
      for (int64_t row = 0; row < m; ++row) {
        const int64_t index = column * ldc + row;
        const float before = beta == 0.0f ? 0.0f : beta * Load(c, c_type, index);
        Store(sums[row] + before, c, c_type, index);
      }
    }
  }
};

// The library that has the CUDA runtime knows which streams are being captured.
decltype(&emulator_record) Recorder() {
  const char* path = std::getenv("FASTRNN_EMULATED_LIBRARY");
  void* library = path == nullptr ? nullptr : dlopen(path, RTLD_NOW | RTLD_NOLOAD);
  if (library == nullptr) return nullptr;
  return reinterpret_cast<decltype(&emulator_record)>(dlsym(library, "emulator_record"));
}

int Enqueue(void* stream, const Product& product) {
  static const auto record = Recorder();
  if (record == nullptr) return kNotInitialized;
  const int status = record(
      stream, [](void* context) { static_cast<Product*>(context)->Compute(); },
      [](void* context) { delete static_cast<Product*>(context); }, new Product(product));
  return status == 0 ? kSuccess : kExecutionFailed;
}

bool Known(int type) { return type == kFloat32 || type == kFloat16 || type == kBfloat16; }

}  // namespace

int emulator_factor_uses(const void* array) { return factor_uses[array]; }
void emulator_fail_blas(int calls) { calls_until_failure = calls; }
int emulator_handles() { return handles; }

EMULATOR_CONTROL int cublasGetProperty(int type, int* value) {
  const char* version = std::getenv("FASTRNN_EMULATED_CUBLAS_VERSION");
  *value = type != 0 ? 0 : version == nullptr ? 12 : std::atoi(version);
  return kSuccess;
}

EMULATOR_CONTROL int cublasCreate_v2(Handle** handle) {
  if (IsToFail()) return kNotInitialized;
  *handle = new Handle;
  ++handles;
  return kSuccess;
}

EMULATOR_CONTROL int cublasDestroy_v2(Handle* handle) {
  delete handle;
  --handles;
  return kSuccess;
}

EMULATOR_CONTROL int cublasSetMathMode(Handle* handle, int mode) {
  if (IsToFail()) return kExecutionFailed;
  handle->math_mode = mode;
  return kSuccess;
}

EMULATOR_CONTROL int cublasSetStream_v2(Handle* handle, void* stream) {
  if (IsToFail()) return kExecutionFailed;
  handle->stream = stream;
  handle->workspace = nullptr;
  return kSuccess;
}

EMULATOR_CONTROL int cublasSetWorkspace_v2(Handle* handle, void* workspace, size_t bytes) {
  if (IsToFail()) return kExecutionFailed;
  if (reinterpret_cast<uintptr_t>(workspace) % 256 != 0) return kInvalidValue;
  handle->workspace = static_cast<char*>(workspace);
  handle->workspace_bytes = bytes;
  return kSuccess;
}

// c[m, n] = op(a)[m, k] * op(b)[k, n] + beta * c, column-major.
EMULATOR_CONTROL int cublasGemmEx(Handle* handle, int transpose_a, int transpose_b, int m, int n,
                                  int k, const float* alpha, const void* a, int a_type, int lda,
                                  const void* b, int b_type, int ldb, const float* beta, void* c,
                                  int c_type, int ldc, int compute_type, int) {
  if (IsToFail()) return kExecutionFailed;
  if (handle->workspace == nullptr || handle->math_mode != kSumsInFloat32) return kNotInitialized;
  if (*alpha != 1.0f || lda < (transpose_a ? k : m) || ldb < (transpose_b ? n : k) || ldc < m) {
    return kInvalidValue;
  }
  const bool tf32 = compute_type == kComputeTf32;
  if (!Known(a_type) || a_type != b_type || (c_type != a_type && c_type != kFloat32) ||
      (!tf32 && compute_type != kComputeFloat32) || (tf32 && a_type != kFloat32)) {
    return kNotSupported;
  }
  ++factor_uses[a];
  return Enqueue(handle->stream, {*handle,
                                  m,
                                  n,
                                  k,
                                  {a, a_type, lda, transpose_a != 0, tf32},
                                  {b, b_type, ldb, transpose_b != 0, tf32},
                                  *beta,
                                  c,
                                  c_type,
                                  ldc});
}
