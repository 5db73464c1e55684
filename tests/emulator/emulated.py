"""What tests set and ask of the emulator: control.h, by way of ctypes."""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import Any, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

LIBRARY = ctypes.CDLL(os.environ["FASTRNN_EMULATED_LIBRARY"])
INPUTS = ["lengths", "x", "h0", "c0"]
OUTPUTS = ["y", "hn", "cn", "reserve"]
GRADIENTS = ["dy", "dhn", "dcn", "dx", "dh0", "dc0"]


class Layer(ctypes.Structure):
    """EmulatedLayer of control.h."""

    _fields_ = [
        ("mode", ctypes.c_char_p),
        ("dtype", ctypes.c_char_p),
        *((name, ctypes.c_int64) for name in ("steps", "batch", "input", "hidden", "directions")),
        ("tf32", ctypes.c_int32),
        *((name, ctypes.c_void_p) for name in INPUTS + OUTPUTS + GRADIENTS),
        ("weights", ctypes.c_void_p * 8),
        ("d_weights", ctypes.c_void_p * 8),
    ]


LIBRARY.emulator_reserve_bytes.restype = ctypes.c_int64
CUBLAS = ctypes.CDLL(os.environ["FASTRNN_CUBLAS"])
CUBLAS.emulator_factor_uses.argtypes = [ctypes.c_void_p]


@contextlib.contextmanager
def compute_capability(capability: int) -> Iterator[None]:
    """Have the emulated device be of another compute capability, 10 * major + minor."""
    LIBRARY.emulator_set_compute_capability(capability)
    yield
    LIBRARY.emulator_set_compute_capability(80)


@contextlib.contextmanager
def failing_launch(launches: int) -> Iterator[None]:
    """Have this thread's launch fail that is so many launches away; 1 is the next one."""
    LIBRARY.emulator_fail_launch(launches)
    yield
    LIBRARY.emulator_fail_launch(0)


def last_error() -> int:
    """Return the error that the CUDA runtime would report to whoever asks next."""
    return int(LIBRARY.emulator_last_error())


def factor_uses(array: np.ndarray) -> int:
    """Return in how many products of this thread the array was the second factor."""
    return int(CUBLAS.emulator_factor_uses(array.ctypes.data))


def workspace_bytes(mode: str, dtype: str, sizes: Sequence[int]) -> Tuple[int, int]:
    """Return what forward and backward need for sizes T, N, I, H."""
    layer = Layer(mode.encode(), dtype.encode(), *sizes, 1, False)
    sizes_found = (ctypes.c_int64 * 2)()
    _run("emulator_workspace_bytes", layer, sizes_found)
    return sizes_found[0], sizes_found[1]


class Result(NamedTuple):
    output: np.ndarray
    h_n: np.ndarray
    c_n: Optional[np.ndarray]
    reserve: Any


class Gradients(NamedTuple):
    x: np.ndarray
    h_0: np.ndarray
    c_0: Optional[np.ndarray]
    weights: List[np.ndarray]


def _address(array: Optional[np.ndarray]) -> Optional[int]:
    return None if array is None else array.ctypes.data


def _run(name: str, layer: Layer, *outcome: Any) -> None:
    message = ctypes.create_string_buffer(2000)
    size = ctypes.c_size_t(len(message))
    status = getattr(LIBRARY, name)(ctypes.byref(layer), *outcome, message, size)
    if status != 0:
        raise (ValueError if status == 1 else RuntimeError)(message.value.decode())


def forward(mode, x, weights, h_0, c_0=None, *, lengths=None, tf32=False, reserve=False):
    """fastrnn.kernels.forward, in which uint16 arrays are bfloat16."""
    dtype = "bfloat16" if x.dtype == np.uint16 else x.dtype.name
    directions, _, hidden = h_0.shape
    layer = Layer(mode.encode(), dtype.encode(), *x.shape, hidden, directions, tf32)
    output = np.empty((*x.shape[:2], directions * hidden), x.dtype)
    h_n = np.empty_like(h_0)
    c_n = None if c_0 is None else np.empty_like(c_0)
    values = np.full(LIBRARY.emulator_reserve_bytes(ctypes.byref(layer)) // 4 + 1, np.nan, "f4")
    kept = values if reserve else None
    arrays = (lengths, x, h_0, c_0, output, h_n, c_n, kept)
    for field, array in zip(INPUTS + OUTPUTS, arrays):
        setattr(layer, field, _address(array))
    for i, weight in enumerate(weights):
        layer.weights[i] = _address(weight)
    _run("emulator_forward", layer)
    return Result(output, h_n, c_n, (layer, arrays, weights) if reserve else None)


def backward(reserve, d_output, d_h_n, d_c_n=None):
    """fastrnn.kernels.backward."""
    layer, (_, x, h_0, c_0, *_), weights = reserve
    d_c_0 = None if c_0 is None else np.empty_like(c_0)
    gradients = Gradients(
        np.empty_like(x), np.empty_like(h_0), d_c_0, [np.empty_like(w) for w in weights]
    )
    arrays = (d_output, d_h_n, d_c_n, *gradients[:3])
    for field, array in zip(GRADIENTS, arrays):
        setattr(layer, field, _address(array))
    for i, weight in enumerate(gradients.weights):
        layer.d_weights[i] = _address(weight)
    _run("emulator_backward", layer)
    return gradients
