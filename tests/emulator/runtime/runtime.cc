// The functions of the CUDA runtime that the backend calls, for two emulated devices, which share
// the host's memory. Streams are all the same: everything is done when the call returns, unless the
// stream is being captured.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <set>
#include <utility>

#include "capture.h"
#include "control.h"
#include "emulator.h"

namespace {

constexpr int kDevices = 2;

std::atomic<int> compute_capability{emulator::kDefaultComputeCapability};
std::atomic<int> most_resident{-1}, most_in_clusters{-1};
// Devices and kernels with more than 48 KiB of shared memory.
std::mutex allowed_mutex;
std::set<std::pair<int, const void*>> allowed;
thread_local int current_device = 0;
thread_local int launches[kDevices] = {};
thread_local cudaError_t last_error = cudaSuccess;
thread_local int launches_until_failure = 0;  // 0: none is to fail
thread_local cudaError_t failure = cudaSuccess;

bool Exists(int device) { return device >= 0 && device < kDevices; }

}  // namespace

namespace emulator {

cudaError_t NoteError(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

cudaError_t StatusOfLaunch() {
  ++launches[current_device];
  BeginLoads();
  if (launches_until_failure == 0 || --launches_until_failure > 0) return cudaSuccess;
  return failure;
}

void AllowShared(const void* kernel) {
  const std::lock_guard<std::mutex> lock(allowed_mutex);
  allowed.emplace(current_device, kernel);
}

bool AllowsShared(const void* kernel, size_t bytes) {
  if (bytes <= (48u << 10)) return true;
  const std::lock_guard<std::mutex> lock(allowed_mutex);
  return allowed.count({current_device, kernel}) > 0;
}

int LimitedBlocks(int blocks, unsigned cluster) {
  const int most = cluster > 1 ? most_in_clusters : most_resident;
  return most < 0 ? blocks : std::min(blocks, most);
}

}  // namespace emulator

void emulator_limit_resident_blocks(int blocks, int in_clusters) {
  most_resident = blocks;
  most_in_clusters = in_clusters;
}
void emulator_set_compute_capability(int capability) { compute_capability = capability; }
void emulator_fail_launch(int launches, int error) {
  launches_until_failure = launches;
  failure = static_cast<cudaError_t>(error);
}
int emulator_last_error() { return last_error; }
int emulator_current_device() { return current_device; }
int emulator_launches(int device) { return launches[device]; }

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) { return cudaRuntimeGetVersion(version); }

cudaError_t cudaGetDeviceCount(int* count) {
  *count = kDevices;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (!Exists(device)) return emulator::NoteError(cudaErrorInvalidDevice);
  std::memset(static_cast<void*>(properties), 0, sizeof *properties);
  std::snprintf(properties->name, sizeof properties->name, "emulator");
  properties->major = compute_capability / 10;
  properties->minor = compute_capability % 10;
  properties->multiProcessorCount = emulator::kLimits.multiprocessors;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (!Exists(device)) return emulator::NoteError(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor:
      *value = compute_capability / 10;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = compute_capability % 10;
      return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
      *value = emulator::kLimits.multiprocessors;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = emulator::kLimits.shared_bytes_per_block;
      return cudaSuccess;
    case cudaDevAttrCooperativeLaunch:
    case cudaDevAttrMemoryPoolsSupported:
      *value = 1;
      return cudaSuccess;
    case cudaDevAttrL2CacheSize:
      *value = emulator::kLimits.l2_bytes;
      return cudaSuccess;
    default:
      return emulator::NoteError(cudaErrorInvalidValue);
  }
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  *attributes = {};
  attributes->ptxVersion = emulator::kDefaultComputeCapability;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = current_device;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  if (!Exists(device)) return emulator::NoteError(cudaErrorInvalidDevice);
  current_device = device;
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* destination, const void* source, size_t bytes, cudaMemcpyKind,
                            cudaStream_t stream) {
  return emulator::NoteError(emulator::Enqueue(stream, [=] {
    std::memcpy(destination, source, bytes);
    return cudaSuccess;
  }));
}

cudaError_t cudaMemsetAsync(void* destination, int value, size_t bytes, cudaStream_t stream) {
  return emulator::NoteError(emulator::Enqueue(stream, [=] {
    std::memset(destination, value, bytes);
    return cudaSuccess;
  }));
}

cudaError_t cudaGetLastError() {
  const cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorLaunchFailure:
      return emulator::LastFailure().c_str();
    case cudaErrorLaunchOutOfResources:
      return "too many resources requested for launch";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorCooperativeLaunchTooLarge:
      return "too many blocks in cooperative launch";
    default:
      return "invalid argument";
  }
}
