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

// The current device of this thread, and how many kernels this thread has launched on a device.
EMULATOR_CONTROL int emulator_current_device();
EMULATOR_CONTROL int emulator_launches(int device);

// How often a stream was made to wait for a point of another one; null: the legacy default stream.
EMULATOR_CONTROL int emulator_waits(void* stream, void* other);

// Whether the last copy between host and device was waited for with Python's lock held.
EMULATOR_CONTROL int emulator_copied_with_python_locked();

// Of the library in the place of cuBLAS:

// In how many products of this thread the array was the second factor, which is the first one where
// matrices are column-major.
EMULATOR_CONTROL int emulator_factor_uses(const void* array);

// Fails this thread's call that is so many calls away (1: the next one); 0 takes that back.
EMULATOR_CONTROL void emulator_fail_blas(int calls);

// How many handles there are.
EMULATOR_CONTROL int emulator_handles();

// ---- a layer on plain pointers ------------------------------------------------------------------

// The sizes and arrays of csrc/rnn.h; null where there is none.
struct EmulatedLayer {
  const char* mode;
  const char* dtype;
  int64_t steps, batch, input, hidden, directions;
  int32_t tf32;
  const int32_t* lengths;
  void *x, *h0, *c0, *y, *hn, *cn, *reserve;
  void *dy, *dhn, *dcn, *dx, *dh0, *dc0;
  void* weights[8];
  void* d_weights[8];
};

EMULATOR_CONTROL int64_t emulator_reserve_bytes(const EmulatedLayer* layer);

// bytes: of forward's workspace and of backward's. Returns as the next ones.
EMULATOR_CONTROL int emulator_workspace_bytes(const EmulatedLayer* layer, int64_t* bytes,
                                              char* message, size_t size);

// 0, or 1 for an InvalidArgument and 2 for other errors, with the message.
EMULATOR_CONTROL int emulator_forward(const EmulatedLayer* layer, char* message, size_t size);
EMULATOR_CONTROL int emulator_backward(const EmulatedLayer* layer, char* message, size_t size);
