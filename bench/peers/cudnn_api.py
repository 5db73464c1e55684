"""cuDNN's C interface for recurrent layers, versions 8 and 9: the library that PyTorch has loaded.

Names, values and prototypes are those of cuDNN's headers ``cudnn_graph.h``, ``cudnn_ops.h`` and
``cudnn_adv.h`` (version 9), which version 8 spreads over ``cudnn_ops_infer.h``,
``cudnn_adv_infer.h`` and ``cudnn_adv_train.h``.
"""

from __future__ import annotations

import ctypes
from contextlib import contextmanager
from ctypes import (
    POINTER,
    c_char_p,
    c_float,
    c_int,
    c_int32,
    c_size_t,
    c_uint32,
    c_ulonglong,
    c_void_p,
)
from enum import IntEnum
from typing import Any, Iterator, Tuple

LIBRARIES = ("libcudnn.so.9", "libcudnn.so.8")

CUDNN_STATUS_SUCCESS = 0

CUDNN_DATA_FLOAT = 0
CUDNN_DATA_HALF = 2
CUDNN_DATA_BFLOAT16 = 9

CUDNN_DEFAULT_MATH = 0
CUDNN_TENSOR_OP_MATH = 1
CUDNN_FMA_MATH = 3

CUDNN_RNN_RELU = 0
CUDNN_RNN_TANH = 1
CUDNN_LSTM = 2
CUDNN_GRU = 3

CUDNN_RNN_DOUBLE_BIAS = 2
CUDNN_UNIDIRECTIONAL = 0
CUDNN_BIDIRECTIONAL = 1
CUDNN_LINEAR_INPUT = 0
CUDNN_RNN_PADDED_IO_DISABLED = 0
CUDNN_RNN_PADDED_IO_ENABLED = 1
CUDNN_RNN_DATA_LAYOUT_SEQ_MAJOR_UNPACKED = 0
CUDNN_RNN_DATA_LAYOUT_SEQ_MAJOR_PACKED = 1
CUDNN_FWD_MODE_INFERENCE = 0
CUDNN_FWD_MODE_TRAINING = 1
CUDNN_WGRAD_MODE_ADD = 0


class Algorithm(IntEnum):
    """How the steps of a layer are run: cudnnRNNAlgo_t."""

    STANDARD = 0
    PERSIST_STATIC = 1
    PERSIST_DYNAMIC = 2
    PERSIST_STATIC_SMALL_H = 3


# The first version whose headers have PERSIST_STATIC_SMALL_H.
SMALL_H_VERSION = 8100

# NOT_SUPPORTED and ARCH_MISMATCH of version 8. Version 9 has the category 3000 to 3999, of which
# some mean that the installation lacks something: INCOMPATIBLE_CUDA_DRIVER, INCOMPATIBLE_CUDART,
# RUNTIME_PREREQUISITE_MISSING, SUBLIBRARY_UNAVAILABLE.
UNSUPPORTED_8 = frozenset({9, 6})
UNSUPPORTED_9 = frozenset(range(3000, 4000)) - {3005, 3006, 3008, 3009}

_FORWARD = [c_void_p] * 14 + [c_size_t, c_void_p] * 3
_BACKWARD_DATA = [c_void_p] * 16 + [c_size_t, c_void_p] * 3
_BACKWARD_WEIGHTS = [c_void_p] * 10 + [c_size_t, c_void_p] * 3
_FORWARD[2] = _BACKWARD_WEIGHTS[2] = c_int  # the forward mode, and whether gradients are added

# The parameters of each function. All of them return a status; enumerations are ints.
PROTOTYPES = {
    "cudnnCreate": [POINTER(c_void_p)],
    "cudnnDestroy": [c_void_p],
    "cudnnSetStream": [c_void_p, c_void_p],
    "cudnnCreateTensorDescriptor": [POINTER(c_void_p)],
    "cudnnDestroyTensorDescriptor": [c_void_p],
    "cudnnSetTensorNdDescriptor": [c_void_p, c_int, c_int, POINTER(c_int), POINTER(c_int)],
    "cudnnCreateDropoutDescriptor": [POINTER(c_void_p)],
    "cudnnDestroyDropoutDescriptor": [c_void_p],
    "cudnnSetDropoutDescriptor": [c_void_p, c_void_p, c_float, c_void_p, c_size_t, c_ulonglong],
    "cudnnCreateRNNDescriptor": [POINTER(c_void_p)],
    "cudnnDestroyRNNDescriptor": [c_void_p],
    "cudnnSetRNNDescriptor_v8": [
        *[c_void_p, c_int, c_int, c_int, c_int, c_int, c_int, c_int, c_int],
        *[c_int32, c_int32, c_int32, c_int32, c_void_p, c_uint32],
    ],
    "cudnnBuildRNNDynamic": [c_void_p, c_void_p, c_int],
    "cudnnCreateRNNDataDescriptor": [POINTER(c_void_p)],
    "cudnnDestroyRNNDataDescriptor": [c_void_p],
    "cudnnSetRNNDataDescriptor": [
        *[c_void_p, c_int, c_int, c_int, c_int, c_int, POINTER(c_int), c_void_p]
    ],
    "cudnnGetRNNTempSpaceSizes": [
        *[c_void_p, c_void_p, c_int, c_void_p, POINTER(c_size_t), POINTER(c_size_t)]
    ],
    "cudnnGetRNNWeightSpaceSize": [c_void_p, c_void_p, POINTER(c_size_t)],
    "cudnnGetRNNWeightParams": [
        *[c_void_p, c_void_p, c_int32, c_size_t, c_void_p, c_int32],
        *[c_void_p, POINTER(c_void_p), c_void_p, POINTER(c_void_p)],
    ],
    "cudnnRNNForward": _FORWARD,
    "cudnnRNNBackwardData_v8": _BACKWARD_DATA,
    "cudnnRNNBackwardWeights_v8": _BACKWARD_WEIGHTS,
}


class MissingLibraryError(RuntimeError):
    """No cuDNN was found."""


class CudnnError(RuntimeError):
    """A call of cuDNN failed.

    Attributes
    ----------
    call, status
        The function's name, and what it returned.
    """

    def __init__(self, call: str, status: int, reason: str):
        super().__init__(f"{call} failed with status {status}: {reason}")
        self.call = call
        self.status = status


class UnsupportedError(CudnnError, NotImplementedError):
    """CuDNN, or this GPU, does not have what was asked for."""


class Cudnn:
    """One loaded library.

    Parameters
    ----------
    path
        As for dlopen.

    Raises
    ------
    OSError
        When there is no such library.
    """

    def __init__(self, path: str):
        library = ctypes.CDLL(path)
        self._functions = {name: getattr(library, name) for name in PROTOTYPES}
        for name, function in self._functions.items():
            function.argtypes = PROTOTYPES[name]
        self._error_string = library.cudnnGetErrorString
        self._error_string.argtypes, self._error_string.restype = [c_int], c_char_p
        library.cudnnGetVersion.restype = c_size_t
        self.version = library.cudnnGetVersion()
        # 8.9.6 says 8906, and 9.1.0 says 90100.
        self.major = self.version // (1000 if self.version < 10000 else 10000)
        self._last_error = None
        if self.major >= 9:
            self._last_error = library.cudnnGetLastErrorString
            self._last_error.argtypes, self._last_error.restype = [c_char_p, c_size_t], None

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function; `UnsupportedError` or `CudnnError` is raised if it fails."""
        status = self._functions[name](*arguments)
        if status == CUDNN_STATUS_SUCCESS:
            return
        reason = self._error_string(status).decode()
        if self._last_error is not None:
            detail = ctypes.create_string_buffer(1024)
            self._last_error(detail, len(detail))
            reason += f" ({detail.value.decode(errors='replace')})" if detail.value else ""
        unsupported = UNSUPPORTED_8 if self.major == 8 else UNSUPPORTED_9
        raise (UnsupportedError if status in unsupported else CudnnError)(name, status, reason)

    @contextmanager
    def created(self, kind: str = "") -> Iterator[c_void_p]:
        """Create a handle, or a descriptor of the given kind such as "Tensor", for a while."""
        what = f"{kind}Descriptor" if kind else ""
        pointer = c_void_p()
        self.call(f"cudnnCreate{what}", ctypes.byref(pointer))
        try:
            yield pointer
        finally:
            self.call(f"cudnnDestroy{what}", pointer)

    def set_tensor(self, descriptor: c_void_p, dtype: int, shape: Tuple[int, ...]) -> None:
        """Describe a contiguous tensor."""
        strides = [1]
        for size in reversed(shape[1:]):
            strides.insert(0, strides[0] * size)
        ints = c_int * len(shape)
        arrays = ints(*shape), ints(*strides)
        self.call("cudnnSetTensorNdDescriptor", descriptor, dtype, len(shape), *arrays)


def load() -> Cudnn:
    """Return the library that PyTorch has loaded.

    Raises
    ------
    MissingLibraryError
        When it has none.
    """
    import torch  # noqa: F401 - its wheels bring the library along

    reasons = []
    for name in LIBRARIES:
        try:
            return Cudnn(name)
        except OSError as error:
            reasons.append(str(error))
    raise MissingLibraryError(f"no cuDNN was found: {'; '.join(reasons)}")
