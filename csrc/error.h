// Typed errors with the file and line that raised them, and the two macros that raise them.
#pragma once

#include <stdexcept>
#include <string>

namespace fastrnn {

// The base class of all errors.
class Error : public std::runtime_error {
 public:
  Error(const std::string& message, const char* file, int line)
      : std::runtime_error(message + " (" + file + ":" + std::to_string(line) + ")") {}
};

// The caller passed an invalid argument.
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

// For files that include the CUDA runtime. cudaGetLastError clears the error; otherwise the next
// call would report it again.
#define FASTRNN_CUDA_TRY(call)                                                                 \
  do {                                                                                         \
    const cudaError_t fastrnn_status = (call);                                                 \
    if (fastrnn_status != cudaSuccess) {                                                       \
      cudaGetLastError();                                                                      \
      throw ::fastrnn::LibraryError(                                                           \
          std::string(#call) + ": " + cudaGetErrorString(fastrnn_status), __FILE__, __LINE__); \
    }                                                                                          \
  } while (false)
