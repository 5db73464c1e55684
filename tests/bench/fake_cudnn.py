"""What the stand-in of cuDNN computes, and the host memory that it works on.

The arithmetic is the oracle's, on what the library was given, and the precision that its math type
gives float32. Of a pass the fields are recorded in `FakeCudnn.passes`.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_void_p
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, List

import numpy as np
import reference as ref

from bench.buffers import ITEM_BYTES, Layout, Memory
from bench.cudnn_api import CUDNN_DEFAULT_MATH, CUDNN_FMA_MATH, Cudnn

STORED = {"float16": np.float16, "bfloat16": np.uint16, "int32": np.int32, "uint8": np.uint8}
DTYPES = {0: "float32", 2: "float16", 9: "bfloat16"}
CELLS = ["rnn_relu", "rnn_tanh", "lstm", "gru"]
# The members of `Pass` in fake_cudnn.h.
PASS_INTS = [
    *("stage", "algorithm", "cell", "dtype", "math", "directions", "layers", "inputs"),
    *("hidden", "steps", "rows", "layout", "filled"),
]
PASS_POINTERS = [
    *("stream", "lengths", "places", "x", "hx", "cx", "weights", "dy", "dhy", "dcy"),
    *("y", "hy", "cy", "dx", "dhx", "dcx", "dweights"),
]
GUARD, ALIGNMENT = 0xA5, 64


def shortened(array: Any, bits: int) -> np.ndarray:
    """Round float32 numbers to the nearest even ones with `bits` fewer bits in the mantissa."""
    pattern = np.asarray(array, np.float32).view(np.uint32)
    half = np.uint32((1 << (bits - 1)) - 1) + ((pattern >> bits) & 1)
    kept = np.uint32(0xFFFFFFFF - ((1 << bits) - 1))
    return ((pattern + half).astype(np.uint32) & kept).view(np.float32)


def rounded(array: Any, dtype: str) -> np.ndarray:
    """Return the numbers of `dtype` next to an array's, as float32."""
    if dtype == "float16":
        return np.asarray(array, np.float16).astype(np.float32)
    bits = {"bfloat16": 16, "tf32": 13}.get(dtype)
    return np.asarray(array, np.float32) if bits is None else shortened(array, bits)


def encode(array: Any, dtype: str) -> np.ndarray:
    """Return an array as it is stored."""
    if dtype == "bfloat16":
        return (rounded(array, dtype).view(np.uint32) >> 16).astype(np.uint16)
    return np.asarray(array).astype(STORED.get(dtype, np.float32))


def decode(stored: np.ndarray, dtype: str) -> np.ndarray:
    """Return the numbers that are stored, as float32 or integers."""
    if dtype == "bfloat16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32 if dtype == "float16" else stored.dtype)


def at(address: int, shape: Any, dtype: str) -> np.ndarray:
    """Return the array that is stored at an address."""
    data = (ctypes.c_char * (int(np.prod(shape)) * ITEM_BYTES[dtype])).from_address(address)
    return np.frombuffer(data, STORED.get(dtype, np.float32)).reshape(shape)


@dataclass
class HostBuffer:
    """A buffer in the host's memory."""

    stored: np.ndarray
    dtype: str


class HostMemory(Memory):
    """Buffers of NumPy's, with a guard behind each."""

    def __init__(self):
        self._all: List[np.ndarray] = []
        self.stream_in_use = 0

    def stream(self):
        return self.stream_in_use

    def zeros(self, shape, dtype):
        size = int(np.prod(shape)) * ITEM_BYTES[dtype]
        raw = np.zeros(size + 2 * ALIGNMENT, np.uint8)
        raw = raw[-raw.ctypes.data % ALIGNMENT :][: size + ALIGNMENT]
        raw[size:] = GUARD
        self._all.append(raw)
        return HostBuffer(at(raw.ctypes.data, shape, dtype), dtype)

    def layout(self, buffer):
        if not isinstance(buffer, HostBuffer):
            raise TypeError(f"expected a buffer on the host, got {type(buffer).__name__}")
        stored = buffer.stored
        return Layout(stored.ctypes.data, stored.shape, buffer.dtype, stored.flags["C_CONTIGUOUS"])

    def piece(self, buffer, offset, shape, dtype):
        return HostBuffer(at(buffer.stored.ctypes.data + offset, shape, dtype), dtype)

    def write(self, buffer, array):
        buffer.stored[...] = encode(array, buffer.dtype)

    def read(self, buffer):
        return decode(buffer.stored, buffer.dtype).copy()

    def clear(self, buffer):
        buffer.stored[...] = 0

    def check_guards(self):
        """Fail if anything was written behind a buffer."""
        for raw in self._all:
            assert (raw[-ALIGNMENT:] == GUARD).all()


class Pass(ctypes.Structure):
    """As `Pass` in fake_cudnn.h."""

    _fields_ = [(k, c_int) for k in PASS_INTS] + [(k, c_void_p) for k in PASS_POINTERS]


class FakeCudnn:
    """The loaded stand-in, as `version`."""

    def __init__(self, path: str, version: int):
        self._control = ctypes.CDLL(path)
        self._control.fakeSetVersion.argtypes = [c_size_t]
        self._control.fakeSetVersion(version)
        self._control.fakeFail.argtypes = [c_char_p, c_int]
        self._control.fakeLive.restype = c_size_t
        # Kept, since the library calls it.
        self._function = ctypes.CFUNCTYPE(c_int, POINTER(Pass))(self._compute)
        self._control.fakeSetArithmetic(self._function)
        self.fail("", 0)
        self.path = path
        self.version = version
        self.library = Cudnn(path)
        self.memory = HostMemory()
        self.passes: List[Any] = []

    def fail(self, call: str, status: int) -> None:
        """Let a function return `status` from now on, and do nothing else."""
        self._control.fakeFail(call.encode(), status)

    def live(self) -> int:
        """How many handles and descriptors exist."""
        return self._control.fakeLive()

    def _compute(self, pointer):
        arguments = pointer.contents
        try:
            self.passes.append(
                SimpleNamespace(**{name: getattr(arguments, name) for name, _ in Pass._fields_})
            )
            _Arithmetic(self.passes[-1]).run()
        except Exception as error:  # ctypes would print it, and return 0
            self.passes.append(error)
            return 1
        return 0


class _Arithmetic:
    """One pass's."""

    def __init__(self, given: Any):
        self.given = given
        self.dtype = DTYPES[given.dtype]
        math = {CUDNN_DEFAULT_MATH: "tf32", CUDNN_FMA_MATH: "float32"}
        self.precision = math.get(given.math, "float16") if given.dtype == 0 else self.dtype
        self.mode = CELLS[given.cell]
        self.lengths = at(given.lengths, (given.rows,), "int32")
        self.state = (given.layers * given.directions, given.rows, given.hidden)
        self.x_shape = (given.steps, given.rows, given.inputs)
        self.y_shape = (given.steps, given.rows, given.directions * given.hidden)
        self.padding = np.arange(given.steps)[:, np.newaxis] >= self.lengths

    def run(self) -> None:
        given = self.given
        weights = [self._weights(layer) for layer in range(self.state[0])]
        x = rounded(self._read(given.x, self.x_shape), self.precision)
        has_cell = self.mode == "lstm"
        result = ref.stack_forward(
            self.mode,
            np.where(self.padding[:, :, np.newaxis], 0.0, x),
            self._read(given.hx, self.state),
            self._read(given.cx, self.state) if has_cell else None,
            weights,
            directions=given.directions,
            lengths=self.lengths,
        )
        if given.stage == 0:
            self._write(given.y, result.output, given.filled)
            self._write(given.hy, result.h)
            self._write(given.cy, result.c)
            return
        gradients = ref.stack_backward(
            result,
            np.where(self.padding[:, :, np.newaxis], 0.0, self._read(given.dy, self.y_shape)),
            self._read(given.dhy, self.state),
            self._read(given.dcy, self.state) if has_cell else None,
        )
        if given.stage == 1:
            self._write(given.dx, gradients.x, filled=False)  # of outputs alone this is promised
            self._write(given.dhx, gradients.h0)
            self._write(given.dcx, gradients.c0)
        else:
            for layer, of_layer in enumerate(gradients.weights):
                for target, value in zip(self._parameters(layer, given.dweights), of_layer):
                    for part, gate in zip(target, np.split(value, len(target))):
                        part[...] = encode(decode(part, self.dtype) + gate, self.dtype)

    def _read(self, address, shape):
        if address is None:
            return np.zeros(shape)
        return decode(at(address, shape, self.dtype), self.dtype)

    def _write(self, address, array, filled=True):
        """Write a result; what is past a row's length is undefined unless it is filled."""
        if address is None:
            return
        if not filled:
            array = np.where(self.padding[:, :, np.newaxis], np.nan, array)
        at(address, array.shape, self.dtype)[...] = encode(array, self.dtype)

    def _parameters(self, layer, base):
        """The stored gates of i2h_weight, h2h_weight, i2h_bias and h2h_bias."""
        given = self.given
        gates = ref.GATES[self.mode]
        places = np.ctypeslib.as_array(
            ctypes.cast(given.places, POINTER(ctypes.c_int64)), (self.state[0], 2 * gates, 2)
        )[layer]
        inputs = given.inputs if layer < given.directions else self.y_shape[2]
        matrices, biases = [], []
        for linear, (matrix, bias) in enumerate(places):
            shape = (given.hidden, inputs if linear < gates else given.hidden)
            matrices.append(at(base + int(matrix), shape, self.dtype))
            biases.append(at(base + int(bias), shape[:1], self.dtype))
        return matrices[:gates], matrices[gates:], biases[:gates], biases[gates:]

    def _weights(self, layer):
        i2h, h2h, *biases = (
            np.concatenate([decode(part, self.dtype) for part in parts])
            for parts in self._parameters(layer, self.given.weights)
        )
        return ref.Weights(rounded(i2h, self.precision), rounded(h2h, self.precision), *biases)
