"""What the CUDA kernels would run a layer with, and why: for the GPU at hand or any other."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Dict, Mapping, Optional, Union

from . import _native

__all__ = ["DEVICES", "DeviceFacts", "LayerPlan", "Plan", "plan"]


@dataclass(frozen=True)
class DeviceFacts:
    """What the choice knows of a GPU."""

    capability: int  # compute capability, 10 * major + minor
    multiprocessors: int  # those that other work leaves free
    shared_bytes: int  # shared memory, the most that a block may have
    # Those of the multiprocessors that clusters of four blocks can take, one block on each.
    cluster_multiprocessors: int = 0
    l2_bytes: int = 0  # of the L2 cache
    code_capability: int = 0  # what the kernels are compiled for, if not for the device; 0: for it
    cooperative: bool = True  # whether there are cooperative launches
    # What was measured on the GPU, 0 for the cost model's nominal figure. What the kernels run with
    # never depends on these.
    exchange_us: float = 0.0  # from a block's release of a flag to another block's acquire
    memory_bytes_per_us: float = 0.0
    products_per_us: float = 0.0  # multiplications with an addition, of one multiprocessor
    host_us: float = 0.0  # to issue a stepwise step


# From NVIDIA's CUDA C++ Programming Guide and the products' data sheets. Hopper's multiprocessors
# come in groups of 16 or 18, of which clusters of four leave two over.
DEVICES: Mapping[str, DeviceFacts] = {
    "V100": DeviceFacts(70, 80, 96 << 10, 0, 6 << 20),
    "T4": DeviceFacts(75, 40, 64 << 10, 0, 4 << 20),
    "A100": DeviceFacts(80, 108, 163 << 10, 0, 40 << 20),
    "RTX 3090": DeviceFacts(86, 82, 99 << 10, 0, 6 << 20),
    "L4": DeviceFacts(89, 58, 99 << 10, 0, 48 << 20),
    "H100": DeviceFacts(90, 132, 227 << 10, 128, 50 << 20),
    "H200": DeviceFacts(90, 132, 227 << 10, 128, 50 << 20),
}


@dataclass(frozen=True)
class Plan:
    """How the steps of one pass are run.

    The numbers from `row_tiles` on are a persistent kernel's and 0 for the stepwise algorithm; the
    costs are those of a model whose constants have not been measured on any GPU, but for what
    `DeviceFacts` says was.
    """

    algorithm: str  # persistent: all steps in one launch; stepwise: a few launches for each step
    reason: str
    flops: float  # a step, 2 for each multiplication and addition
    l2_bytes: float  # a step, of all blocks
    memory_bytes: float  # once, the recurrent weights
    synchronizations: int  # a step: exchanges between blocks, or launches
    step_us: float  # the least that a step takes
    total_us: float  # all steps, directions and launches
    row_tiles: int = 0  # of 16 rows of weights, in a block
    batch_tiles: int = 0  # of 8 rows of the batch, in a block
    units: int = 0  # hidden units of a block
    blocks: int = 0  # that exchange among themselves
    groups: int = 0  # of such blocks in a launch and direction, each with its rows of the batch
    launches: int = 0  # for all rows of the batch
    directions: int = 0  # in a launch
    split: int = 0  # backward: blocks that share the sums of a product
    cluster: int = 0  # backward: blocks of a cluster, 1 where there are none
    # Of each warp, 64 bytes along K of all its rows, that come through L2 in every step as the chip
    # has no room for them.
    streamed_chunks: int = 0
    shared_bytes: int = 0  # shared memory of a block

    def __str__(self) -> str:
        lines = [f"{self.algorithm}: {self.reason}"]
        if self.algorithm == "persistent":
            more = f", K split in {self.split}" * (self.split > 1)
            more += f", clusters of {self.cluster} blocks" * (self.cluster > 1)
            more += ", a part of the weights streamed" * (self.streamed_chunks > 0)
            lines.append(
                f"  grid {self.blocks} x {self.groups} x {self.directions}, "
                f"{self.launches} launch(es) for the batch; a block: {16 * self.row_tiles} rows of "
                f"weights ({self.units} units) by {8 * self.batch_tiles} rows of the batch, "
                f"{self.shared_bytes} bytes of shared memory" + more
            )
        lines.append(
            f"  a step: {self.flops:.3g} FLOPs, {self.l2_bytes:.3g} bytes from L2, "
            f"{self.synchronizations} synchronization(s), at least {self.step_us:.2f} us; in all "
            f"{self.total_us:.0f} us, with {self.memory_bytes:.3g} bytes of weights from memory"
        )
        return "\n".join(lines)


@dataclass(frozen=True)
class LayerPlan:
    """The plans of both passes; they are chosen independently."""

    forward: Plan
    backward: Plan

    def __str__(self) -> str:
        return f"forward: {self.forward}\nbackward: {self.backward}"


def plan(
    mode: str,
    steps: int,
    rows: int,
    hidden: int,
    *,
    directions: int = 1,
    dtype: str = "float32",
    tf32: Optional[bool] = None,
    algorithm: Optional[str] = None,
    device: Union[int, str, DeviceFacts] = 0,
) -> LayerPlan:
    """Say what the CUDA kernels would run the steps of a layer with.

    Parameters
    ----------
    mode, directions, tf32, algorithm
        As `fastrnn.kernels.forward` has them.
    steps, rows, hidden : int
        T, N and H. The input's share is one product before the steps, and no part of this.
    dtype : {'float32', 'float16', 'bfloat16'}
        The arrays' type.
    device : int, str or DeviceFacts
        A GPU of this machine, which is asked how many blocks of the kernels it holds at once, one
        of `DEVICES` by its name, or what is known of another.

    Returns
    -------
    LayerPlan
        Printable, with the reason and the cost.

    Raises
    ------
    ValueError
        A mode, size, type, algorithm, device or measurement that is none; an algorithm that cannot
        be.
    RuntimeError
        CUDA failed.
    ModuleNotFoundError
        fastrnn was installed without its native library.
    """
    native = _native.library()
    found = _device(device)

    def of_pass(backward: bool) -> Plan:
        choice = native.plan(
            backward,
            mode,
            dtype,
            steps,
            rows,
            hidden,
            directions,
            tf32,
            algorithm,
            found,
        )
        return Plan(**choice)

    return LayerPlan(of_pass(False), of_pass(True))


def _device(device: Union[int, str, DeviceFacts]) -> Union[int, Dict[str, Any]]:
    if isinstance(device, int):
        return device
    if isinstance(device, DeviceFacts):
        return asdict(device)
    if device not in DEVICES:
        raise ValueError(f"device is {device!r}, expected one of {', '.join(DEVICES)}")
    return asdict(DEVICES[device])
