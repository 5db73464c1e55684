"""cuDNN's C interface for recurrent layers, versions 8 and 9, found at run time.

`load` looks for the library where it may be, in this order:

1. the one that the environment variable FASTRNN_CUDNN names; nothing else is tried then;
2. one that is in the process already, which PyTorch or MXNet brought along;
3. pip's ``nvidia.cudnn`` package, and the folders of PyTorch and MXNet;
4. the system's.

Names, values and prototypes are those of cuDNN's headers ``cudnn_graph.h``, ``cudnn_ops.h`` and
``cudnn_adv.h`` (version 9), which version 8 spreads over ``cudnn_ops_infer.h``,
``cudnn_adv_infer.h`` and ``cudnn_adv_train.h``.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
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
from pathlib import Path
from typing import Any, Iterator, List, NamedTuple, Tuple

LIBRARIES = ("libcudnn.so.9", "libcudnn.so.8")
PACKAGES = ("nvidia.cudnn", "torch", "mxnet")

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
    "cudnnGetTensorNdDescriptor": [
        *[c_void_p, c_int, POINTER(c_int), POINTER(c_int), POINTER(c_int), POINTER(c_int)]
    ],
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
    """No usable cuDNN was found."""


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


class Unsupported(CudnnError):  # noqa: N818 - an answer, of which a benchmark makes a row
    """CuDNN, or this GPU, does not have what was asked for."""


class Tensor(NamedTuple):
    """What a tensor descriptor says."""

    dtype: int
    shape: Tuple[int, ...]
    strides: Tuple[int, ...]


class Cudnn:
    """One loaded library.

    Parameters
    ----------
    path, flags
        As for dlopen.

    Raises
    ------
    OSError
        When there is no such library.
    MissingLibraryError
        When it is not cuDNN 8 or 9.
    """

    def __init__(self, path: str, flags: int = 0):
        library = ctypes.CDLL(path, mode=flags)
        try:
            self._functions = {name: getattr(library, name) for name in PROTOTYPES}
            self._error_string = library.cudnnGetErrorString
            get_version = library.cudnnGetVersion
        except AttributeError as error:
            raise MissingLibraryError(f"lacks a function of cuDNN: {error}") from None
        for name, function in self._functions.items():
            function.argtypes = PROTOTYPES[name]
        self._error_string.argtypes, self._error_string.restype = [c_int], c_char_p
        get_version.argtypes, get_version.restype = [], c_size_t
        self.path = path
        self.version = get_version()
        # 8.9.6 says 8906, and 9.1.0 says 90100.
        self.major = self.version // (1000 if self.version < 10000 else 10000)
        if self.major not in (8, 9):
            raise MissingLibraryError(f"says that its version is {self.version}, expected 8 or 9")
        self._last_error = None
        if self.major == 9:
            self._last_error = library.cudnnGetLastErrorString
            self._last_error.argtypes, self._last_error.restype = [c_char_p, c_size_t], None

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function; `Unsupported` or `CudnnError` is raised if it fails."""
        status = self._functions[name](*arguments)
        if status == CUDNN_STATUS_SUCCESS:
            return
        reason = self._error_string(status).decode()
        if self._last_error is not None:
            detail = ctypes.create_string_buffer(1024)
            self._last_error(detail, len(detail))
            reason += f" ({detail.value.decode(errors='replace')})" if detail.value else ""
        unsupported = UNSUPPORTED_8 if self.major == 8 else UNSUPPORTED_9
        raise (Unsupported if status in unsupported else CudnnError)(name, status, reason)

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

    def get_tensor(self, descriptor: c_void_p) -> Tensor:
        """What a descriptor says of a tensor of up to eight dimensions, cuDNN's most."""
        dtype, count = c_int(), c_int()
        shape, strides = (c_int * 8)(), (c_int * 8)()
        results = ctypes.byref(dtype), ctypes.byref(count), shape, strides
        self.call("cudnnGetTensorNdDescriptor", descriptor, 8, *results)
        return Tensor(dtype.value, tuple(shape[: count.value]), tuple(strides[: count.value]))


def load() -> Cudnn:
    """Return the first usable library.

    Raises
    ------
    MissingLibraryError
        When there is none; it says what was tried, and why that does not do.
    """
    named = os.environ.get("FASTRNN_CUDNN")
    places = [(named, 0)] if named else _places()
    tried = []
    for path, flags in places:
        try:
            return Cudnn(path, flags)
        except (OSError, MissingLibraryError) as error:
            unloaded = flags and isinstance(error, OSError)
            tried.append(f"\n  {path}: {'not in this process' if unloaded else error}")
    if not named:
        absent = [package for package in PACKAGES if not _folders(package)]
        tried += [f"\n  Python package {package}: not installed" for package in absent]
    what = "FASTRNN_CUDNN names no usable cuDNN" if named else "no usable cuDNN was found"
    raise MissingLibraryError(f"{what}; tried:{''.join(tried)}")


def _places() -> List[Tuple[str, int]]:
    """Where the library may be, with the flags to load it with."""
    packages = [Path(folder) for package in PACKAGES for folder in _folders(package)]
    # MXNet's wheels keep libraries beside their modules.
    folders = [folder for package in packages for folder in (package / "lib", package)]
    return [
        *((name, os.RTLD_NOLOAD) for name in LIBRARIES),
        *((str(folder / name), 0) for folder in folders for name in LIBRARIES),
        *((name, 0) for name in LIBRARIES),
    ]


def _folders(name: str) -> List[str]:
    """The folders of a Python package, which is not imported; none if it is not installed."""
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:  # of the package that it is in
        return []
    return list(spec.submodule_search_locations or []) if spec else []
