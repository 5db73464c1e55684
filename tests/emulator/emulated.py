"""What tests set and ask of the emulator: control.h, by way of ctypes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from typing import Any, Callable, Iterator, Sequence, Tuple

import numpy as np

LIBRARY = ctypes.CDLL(os.environ["FASTRNN_EMULATED_LIBRARY"])
LIBRARY.emulator_workspace_bytes.argtypes = [
    *[ctypes.c_char_p] * 2,
    *[ctypes.c_int64] * 4,
    ctypes.POINTER(ctypes.c_int64),
    ctypes.c_char_p,
    ctypes.c_size_t,
]
CUBLAS = ctypes.CDLL(os.environ["FASTRNN_CUBLAS"])
CUBLAS.emulator_factor_uses.argtypes = [ctypes.c_void_p]
LIBRARY.emulator_begin_capture.argtypes = [ctypes.c_void_p]
LIBRARY.emulator_end_capture.argtypes = [ctypes.c_void_p]
CAPSULE_POINTER = ctypes.pythonapi.PyCapsule_GetPointer
CAPSULE_POINTER.argtypes = [ctypes.py_object, ctypes.c_char_p]
CAPSULE_POINTER.restype = ctypes.c_void_p


@contextlib.contextmanager
def compute_capability(capability: int) -> Iterator[None]:
    """Have the emulated device be of another compute capability, 10 * major + minor."""
    LIBRARY.emulator_set_compute_capability(capability)
    try:
        yield
    finally:
        LIBRARY.emulator_set_compute_capability(90)


def limit_resident_blocks(blocks: int = -1, in_clusters: int = -1) -> None:
    """Have the emulated device hold that many blocks at once, or as many as there is room for."""
    LIBRARY.emulator_limit_resident_blocks(blocks, in_clusters)


# Of cudaError_t.
OUT_OF_RESOURCES, COOPERATIVE_LAUNCH_TOO_LARGE, INVALID_CLUSTER_SIZE = 701, 720, 912


# Of emulator::Fault.
STALE_LOADS, EXCHANGED_ROWS = 1, 2


@contextlib.contextmanager
def failing_launch(launches: int, error: int = OUT_OF_RESOURCES) -> Iterator[None]:
    """Have this thread's launch fail that is so many launches away; 1 is the next one."""
    LIBRARY.emulator_fail_launch(launches, error)
    try:
        yield
    finally:
        LIBRARY.emulator_fail_launch(0, 0)


def launches() -> int:
    """Return how many kernels this thread has launched on the first device."""
    return int(LIBRARY.emulator_launches(0))


def last_error() -> int:
    """Return the error that the CUDA runtime would report to the next call that asks."""
    return int(LIBRARY.emulator_last_error())


@contextlib.contextmanager
def capture(stream: int) -> Iterator[None]:
    """Capture a stream into a graph, which runs at the end.

    Fails unless all that happens can be part of a graph.
    """
    LIBRARY.emulator_begin_capture(stream)
    try:
        yield
    finally:
        valid = LIBRARY.emulator_end_capture(stream)
    assert valid


def in_new_thread(run: Callable[[], Any]) -> Any:
    """Return what `run` returns in a thread of its own, once that has ended."""
    found = []
    thread = threading.Thread(target=lambda: found.append(run()))
    thread.start()
    thread.join()
    # Python's thread has ended; what C++ destroys with a thread is destroyed after that.
    while os.path.exists(f"/proc/self/task/{thread.native_id}"):
        pass
    return found[0]


def address(array: Any) -> int:
    """Return where a `DeviceArray` lies."""
    capsule = array.__dlpack__()
    # The tensor comes first in the capsule, and its address first in the tensor.
    pointer = ctypes.c_void_p.from_address(CAPSULE_POINTER(capsule, b"dltensor"))
    return pointer.value or 0


def write(array: Any, numbers: Any) -> None:
    """Write NumPy's float32 numbers to a `DeviceArray` of as many."""
    assert array.dtype == "float32" and array.shape == numbers.shape
    ctypes.memmove(address(array), np.ascontiguousarray(numbers).ctypes.data, numbers.nbytes)


def factor_uses(array: Any) -> int:
    """Return in how many products of this thread a `DeviceArray` was the second factor."""
    return int(CUBLAS.emulator_factor_uses(address(array)))


def workspace_bytes(mode: str, dtype: str, sizes: Sequence[int]) -> Tuple[int, int]:
    """Return what forward and backward need for sizes T, N, I, H.

    Raises
    ------
    ValueError
        With the library's message, if they are refused.
    """
    found = (ctypes.c_int64 * 2)()
    message = ctypes.create_string_buffer(2000)
    arguments = (mode.encode(), dtype.encode(), *sizes, found, message, len(message))
    if LIBRARY.emulator_workspace_bytes(*arguments) != 0:
        raise ValueError(message.value.decode())
    return found[0], found[1]
