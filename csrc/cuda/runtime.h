// The CUDA runtime, or the emulator in its place.
#pragma once

#if defined(FASTRNN_EMULATE)
#include "cuda_emulator.h"
#else
#include <cuda_runtime.h>
#endif
