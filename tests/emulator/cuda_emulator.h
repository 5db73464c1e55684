// Everything that kernels and their host code need in place of the CUDA runtime.
#pragma once

#include "cuda_names.h"
#include "emulator.h"
#include "tensor_core.h"
#include "warp.h"
