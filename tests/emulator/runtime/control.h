// What tests set and ask of the emulator from Python, through ctypes: emulated.py.
#pragma once

#include <cstddef>
#include <cstdint>

#define EMULATOR_CONTROL extern "C" __attribute__((visibility("default")))

// The emulated device's compute capability from now on, as 10 * major + minor.
EMULATOR_CONTROL void emulator_set_compute_capability(int capability);

// The most blocks that an emulated device holds at once from now on, also of a grid in clusters;
// negative: as many as there is room for.
EMULATOR_CONTROL void emulator_limit_resident_blocks(int blocks, int in_clusters);

// Fails this thread's launch that is so many launches away (1: the next one) with a cudaError_t; 0
// takes that back.
EMULATOR_CONTROL void emulator_fail_launch(int launches, int error);

// Leaves out the barrier, fence or wait at FILE:LINE from now on, as FASTRNN_MUTANT does; "": none.
EMULATOR_CONTROL void emulator_leave_out(const char* place);

// Plants an emulator::Fault in all kernels from now on; 0: none.
EMULATOR_CONTROL void emulator_plant(int fault);

// The error that the CUDA runtime would report to this thread's next call that asks.
EMULATOR_CONTROL int emulator_last_error();

// The current device of this thread, and how many kernels this thread has launched on a device.
EMULATOR_CONTROL int emulator_current_device();
EMULATOR_CONTROL int emulator_launches(int device);

// How often a stream was made to wait for a point of another one; null: the legacy default stream,
// and all bits set: any.
EMULATOR_CONTROL int emulator_waits(void* stream, void* other);

// Between these two the stream is captured into a CUDA graph, which the latter runs. It tells
// whether that went well and nothing happened that cannot be part of a graph.
EMULATOR_CONTROL void emulator_begin_capture(void* stream);
EMULATOR_CONTROL int emulator_end_capture(void* stream);

// For the library in the place of cuBLAS: calls run(context) at once, or when the graph runs, and
// destroy(context) in the end. Returns a cudaError_t.
EMULATOR_CONTROL int emulator_record(void* stream, void (*run)(void*), void (*destroy)(void*),
                                     void* context);

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

// bytes: of the workspaces of forward and backward, in one direction. Returns 0, or 1 with the
// message where the sizes are refused.
EMULATOR_CONTROL int emulator_workspace_bytes(const char* mode, const char* dtype, int64_t steps,
                                              int64_t batch, int64_t input, int64_t hidden,
                                              int64_t* bytes, char* message, size_t size);
