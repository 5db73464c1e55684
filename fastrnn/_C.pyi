"""The native library. `fastrnn.kernels` is its public face."""

from typing import (
    Any,
    Dict,
    List,
    Optional,
    Sequence,
    Tuple,
    TypedDict,
    Union,
    type_check_only,
)

from numpy.typing import NDArray

@type_check_only
class BuildInfo(TypedDict):
    version: str
    compiler: str
    onednn: Optional[str]
    mxnet_operators: bool
    mxnet_version: Optional[str]
    cuda_toolkit: Optional[str]
    cuda_architectures: List[str]
    operator_types: Dict[str, Tuple[str, ...]]
    gates: Dict[str, int]

@type_check_only
class CudaDevice(TypedDict):
    name: str
    compute_capability: str
    memory_bytes: int
    multiprocessors: int

@type_check_only
class CudaDevices(TypedDict):
    driver: Optional[str]
    error: Optional[str]
    devices: List[CudaDevice]

def build_info() -> BuildInfo: ...
def cuda_devices() -> CudaDevices: ...
def cpu_threads() -> int: ...
def set_cpu_threads(threads: int) -> None: ...
def plans_made() -> int: ...
def pool_bytes(device: int, set_back: bool) -> Tuple[int, int]: ...
def forward(
    mode: str,
    x: Any,
    h_0: Optional[Any],
    c_0: Optional[Any],
    weights: Sequence[Any],
    layers: int,
    lengths: Optional[Any],
    projected: bool,
    clip: Optional[Tuple[float, float, bool]],
    noise: Optional[Tuple[float, float, float]],
    seed: Optional[Any],
    layer_norm: bool,
    tf32: Optional[bool],
    algorithm: Optional[str],
    reserve: bool,
    out: Optional[Sequence[Any]],
    threads: Optional[int],
    stream: int,
) -> List[Any]: ...
def backward(
    mode: str,
    x: Any,
    h_0: Optional[Any],
    c_0: Optional[Any],
    weights: Sequence[Any],
    layers: int,
    lengths: Optional[Any],
    projected: bool,
    clip: Optional[Tuple[float, float, bool]],
    noise: Optional[Tuple[float, float, float]],
    seed: Optional[Any],
    layer_norm: bool,
    tf32: Optional[bool],
    algorithm: Optional[str],
    output: Any,
    reserve: Any,
    d_output: Any,
    d_h_n: Optional[Any],
    d_c_n: Optional[Any],
    out: Optional[Sequence[Any]],
    threads: Optional[int],
    stream: int,
) -> List[Any]: ...
def reserve_words(
    mode: str,
    dtype: str,
    hidden: int,
    directions: int,
    layers: int,
    projection: int = 0,
    noise: Optional[Tuple[float, float, float]] = None,
    layer_norm: bool = False,
) -> int: ...
def device_facts(device: int) -> Dict[str, int]: ...
def reason(
    mode: str,
    dtype: str,
    steps: int,
    batch: int,
    input: int,
    hidden: int,
    directions: int,
    layers: int,
    projection: int,
    clip: Optional[Tuple[float, float, bool]],
    noise: Optional[Tuple[float, float, float]],
    layer_norm: bool,
    reserve: bool,
    tf32: Optional[bool],
    algorithm: Optional[str],
    device: Optional[int],
) -> str: ...
def plan(
    backward: bool,
    mode: str,
    dtype: str,
    steps: int,
    batch: int,
    hidden: int,
    directions: int,
    tf32: Optional[bool],
    algorithm: Optional[str],
    device: Union[int, Dict[str, float]],
    projection: int = 0,
    clip: Optional[Tuple[float, float, bool]] = None,
    noise: Optional[Tuple[float, float, float]] = None,
    layer_norm: bool = False,
) -> Dict[str, Any]: ...

class DeviceArray:
    """An array on a GPU, from `fastrnn.kernels.to_device` or a call; for DLPack's consumers."""

    @property
    def shape(self) -> Tuple[int, ...]: ...
    @property
    def dtype(self) -> str: ...  # float32, float16, bfloat16 or int32
    @property
    def device(self) -> int: ...
    @staticmethod
    def from_host(array: NDArray[Any], dtype: str, device: int) -> DeviceArray: ...
    def to_host(self) -> NDArray[Any]: ...
    def __dlpack__(self, *, stream: Optional[int] = None, **keywords: Any) -> Any: ...
    def __dlpack_device__(self) -> Tuple[int, int]: ...
