"""The native library. `fastrnn.kernels` is its public face."""

from typing import Any, List, Optional, Sequence, Tuple, TypedDict

from numpy import float32
from numpy.typing import NDArray

_Array = NDArray[float32]

class BuildInfo(TypedDict):
    version: str
    compiler: str
    onednn: Optional[str]
    mxnet_operators: bool
    mxnet_version: Optional[str]
    cuda_toolkit: Optional[str]
    cuda_architectures: List[str]
    cuda_kernels: bool

class CudaDevice(TypedDict):
    name: str
    compute_capability: str
    memory_bytes: int
    multiprocessors: int

class CudaDevices(TypedDict):
    driver: Optional[str]
    error: Optional[str]
    devices: List[CudaDevice]

def build_info() -> BuildInfo: ...
def cuda_devices() -> CudaDevices: ...
def forward(
    mode: str,
    x: Any,
    h_0: Optional[Any],
    c_0: Optional[Any],
    weights: Sequence[Any],
    reserve: bool,
) -> Tuple[_Array, _Array, Optional[_Array], Optional[_Array]]: ...
def backward(
    mode: str,
    x: Any,
    h_0: Optional[Any],
    c_0: Optional[Any],
    weights: Sequence[Any],
    output: Any,
    reserve: Any,
    d_output: Any,
    d_h_n: Optional[Any],
    d_c_n: Optional[Any],
) -> Tuple[_Array, _Array, Optional[_Array], List[_Array]]: ...
