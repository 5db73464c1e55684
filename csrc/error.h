// Typed errors that carry the place they were raised at, and the two macros that raise them.
#pragma once

#include <stdexcept>
#include <string>

namespace fastrnn {

// The base of everything that fastrnn throws.
class Error : public std::runtime_error {
 public:
  Error(const std::string& message, const char* file, int line)
      : std::runtime_error(message + " (" + file + ":" + std::to_string(line) + ")") {}
};

// The caller passed something that the function does not take.
class InvalidArgument : public Error {
 public:
  using Error::Error;
};

// A library underneath (CUDA, cuBLAS, oneDNN) reported a failure.
class LibraryError : public Error {
 public:
  using Error::Error;
};

}  // namespace fastrnn

#define FASTRNN_EXPECTS(condition, message)                          \
  do {                                                               \
    if (!(condition)) {                                              \
      throw ::fastrnn::InvalidArgument(message, __FILE__, __LINE__); \
    }                                                                \
  } while (false)

// For files that include the CUDA runtime. cudaGetLastError clears the error, so that the next call
// does not report this one's failure again.
#define FASTRNN_CUDA_TRY(call)                                                                 \
  do {                                                                                         \
    const cudaError_t fastrnn_status = (call);                                                 \
    if (fastrnn_status != cudaSuccess) {                                                       \
      cudaGetLastError();                                                                      \
      throw ::fastrnn::LibraryError(                                                           \
          std::string(#call) + ": " + cudaGetErrorString(fastrnn_status), __FILE__, __LINE__); \
    }                                                                                          \
  } while (false)
