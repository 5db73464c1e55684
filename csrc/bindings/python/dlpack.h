// The memory layout of DLPack 0.x (dmlc/dlpack): an ABI that array libraries agree on.
#pragma once

#include <cstdint>

namespace fastrnn {
namespace python {

struct DlTensor {
  void* data;
  int32_t device_type;
  int32_t device_id;
  int32_t rank;
  uint8_t type_code;
  uint8_t type_bits;
  uint16_t type_lanes;
  int64_t* shape;
  int64_t* strides;  // in values; null: dense and row-major
  uint64_t byte_offset;
};

struct DlManagedTensor {
  DlTensor tensor;
  void* context;
  void (*deleter)(DlManagedTensor*);
};

constexpr int kDlCpu = 1;
constexpr int kDlCuda = 2;
constexpr int kDlCudaHost = 3;
constexpr int kDlCudaManaged = 13;

constexpr int kDlInt = 0;
constexpr int kDlFloat = 2;
constexpr int kDlBfloat = 4;

// The name of a capsule whose tensor has not been consumed.
constexpr const char* kDlCapsule = "dltensor";

}  // namespace python
}  // namespace fastrnn
