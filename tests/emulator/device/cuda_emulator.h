// Everything that kernels and their host code need in place of the CUDA runtime.
#pragma once

#include "cuda_names.h"
#include "emulator.h"
#include "tensor_core.h"

#ifndef FASTRNN_ARCH
#define FASTRNN_ARCH 900
#endif
#define FASTRNN_DEVICE inline

// The host's waits are mutants, too.
#define cudaStreamWaitEvent(...)                                      \
  (::emulator::IsLeftOut({"cudaStreamWaitEvent", __FILE__, __LINE__}) \
       ? cudaSuccess                                                  \
       : cudaStreamWaitEvent(__VA_ARGS__))
