// The CUDA runtime, or the emulator in its place, and the architecture that is compiled for.
#pragma once

#if defined(FASTRNN_EMULATE)
#include "cuda_emulator.h"
#else
#include <cuda_runtime.h>
#if defined(__CUDA_ARCH__)
#define FASTRNN_ARCH __CUDA_ARCH__
#else
#define FASTRNN_ARCH 0
#endif
#define FASTRNN_DEVICE __device__ __forceinline__
#endif
