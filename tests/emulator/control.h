// What tests set and ask of the emulator from Python, through ctypes: emulated.py.
#pragma once

#include <cstddef>
#include <cstdint>

#define EMULATOR_CONTROL extern "C" __attribute__((visibility("default")))

// The emulated device's compute capability from now on, as 10 * major + minor.
EMULATOR_CONTROL void emulator_set_compute_capability(int capability);

// Fails this thread's launch that is so many launches away (1: the next one); 0 takes that back.
EMULATOR_CONTROL void emulator_fail_launch(int launches);

// The error that the CUDA runtime would report to whoever asks next in this thread.
EMULATOR_CONTROL int emulator_last_error();

// In how many products of this thread the array was the second factor. A function of the library in
// the place of cuBLAS, whose column-major first factor it is.
EMULATOR_CONTROL int emulator_factor_uses(const void* array);

// bytes: of the workspaces of forward and backward, in one direction. Returns 0, or 1 with the
// message where the sizes are refused.
EMULATOR_CONTROL int emulator_workspace_bytes(const char* mode, const char* dtype, int64_t steps,
                                              int64_t batch, int64_t input, int64_t hidden,
                                              int64_t* bytes, char* message, size_t size);
