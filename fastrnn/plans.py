"""How the CUDA kernels would run a layer, and why: on the GPU at hand or on any other."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Dict, Mapping, Optional, Union

from . import _native
from .cell import Clip, Noise, checked_clip, checked_flag, checked_noise
from .check import verdict

__all__ = ["DEVICES", "DeviceFacts", "LayerPlan", "Plan", "plan", "reason"]


@dataclass(frozen=True)
class DeviceFacts:
    """What the choice of an algorithm knows of a GPU.

    The last four are measured rates, for the cost model alone; 0 stands for its nominal figure. The
    kernels that a call runs never depend on a measurement.

    Attributes
    ----------
    capability : int
        Compute capability, 10 * major + minor.
    multiprocessors : int
        Those that other work leaves free.
    shared_bytes : int
        The most shared memory that a block may have.
    cluster_multiprocessors : int
        How many multiprocessors clusters of four blocks can fill, one block on each.
    l2_bytes : int
        Size of the L2 cache.
    code_capability : int
        The capability that the kernels are compiled for; 0: the device's own.
    cooperative : bool
        Whether the GPU has cooperative launches.
    exchange_us : float
        Time from one block's release of a flag to another block's acquire.
    memory_bytes_per_us : float
        Memory bandwidth.
    products_per_us : float
        Multiply-adds of one multiprocessor.
    host_us : float
        Time that the host takes to issue a stepwise step; a persistent launch takes as much more or
        less than nominal.
    """

    capability: int
    multiprocessors: int
    shared_bytes: int
    cluster_multiprocessors: int = 0
    l2_bytes: int = 0
    code_capability: int = 0
    cooperative: bool = True
    exchange_us: float = 0.0
    memory_bytes_per_us: float = 0.0
    products_per_us: float = 0.0
    host_us: float = 0.0


# From NVIDIA's CUDA C++ Programming Guide and the products' data sheets. Hopper's multiprocessors
# come in groups of up to 18, of which clusters of four leave some idle. Which ones are switched off
# differs from chip to chip: most H100s fill 128 with such clusters, some 124 ("H100-124").
DEVICES: Mapping[str, DeviceFacts] = {
    "V100": DeviceFacts(70, 80, 96 << 10, 0, 6 << 20),
    "T4": DeviceFacts(75, 40, 64 << 10, 0, 4 << 20),
    "A100": DeviceFacts(80, 108, 163 << 10, 0, 40 << 20),
    "RTX 3090": DeviceFacts(86, 82, 99 << 10, 0, 6 << 20),
    "L4": DeviceFacts(89, 58, 99 << 10, 0, 48 << 20),
    "H100": DeviceFacts(90, 132, 227 << 10, 128, 50 << 20),
    "H100-124": DeviceFacts(90, 132, 227 << 10, 124, 50 << 20),
    "H200": DeviceFacts(90, 132, 227 << 10, 128, 50 << 20),
}


@dataclass(frozen=True)
class Plan:
    """How the steps of one pass are run.

    The costs come from a model whose constants have not been measured on any GPU, except for the
    rates given in `DeviceFacts`. The fields from `row_tiles` on describe a persistent kernel; the
    stepwise algorithm has 0 in them.

    Attributes
    ----------
    algorithm : str
        ``persistent``: all steps in one launch; ``stepwise``: a few launches for each step.
    reason : str
        Why it was chosen.
    flops : float
        Floating-point operations of a step.
    l2_bytes : float
        Bytes that all blocks read from L2 in a step.
    memory_bytes : float
        Bytes of recurrent weights, read from memory once.
    synchronizations : int
        Exchanges between blocks, or launches, in a step.
    path_us : float
        Time of a step's dependent instructions, from one exchange to the next; of a stepwise step
        without the launches.
    step_us : float
        Estimated time of a step.
    total_us : float
        Time of all steps, directions and launches.
    row_tiles : int
        Tiles of 16 rows of weights in a block.
    batch_tiles : int
        Tiles of 8 rows of the batch in a block.
    units : int
        Hidden units of a block.
    blocks : int
        Blocks in a group; they exchange data with each other.
    groups : int
        Groups in a launch and direction, each with its rows of the batch.
    launches : int
        Launches for all rows of the batch.
    directions : int
        Directions in a launch.
    split : int
        Backward: blocks that share the sums of a product.
    cluster : int
        Backward: blocks of a cluster; 1: no clusters.
    tagged : bool
        Forward: blocks exchange tagged words, instead of flags beside the numbers.
    streamed_slices : int
        Slices of a warp's weights, 64 bytes along K, that do not fit on the chip and are read
        through L2 in every step.
    shared_bytes : int
        Shared memory of a block.
    measured_step_us, measured_total_us : float or None
        The same two costs with the rates that ``fastrnn check`` measured on the device; the choice
        does not depend on them.
    """

    algorithm: str
    reason: str
    flops: float
    l2_bytes: float
    memory_bytes: float
    synchronizations: int
    path_us: float
    step_us: float
    total_us: float
    row_tiles: int = 0
    batch_tiles: int = 0
    units: int = 0
    blocks: int = 0
    groups: int = 0
    launches: int = 0
    directions: int = 0
    split: int = 0
    cluster: int = 0
    tagged: bool = False
    streamed_slices: int = 0
    shared_bytes: int = 0
    measured_step_us: Optional[float] = None
    measured_total_us: Optional[float] = None

    def selector(self, backward: bool) -> str:
        """Return what selects this plan's kernel, as for `fastrnn.kernels.forward`."""
        if self.algorithm == "stepwise":
            return self.algorithm
        numbers = {"batch_tiles": self.batch_tiles, "directions": self.directions}
        if backward:
            numbers.update(backward_row_tiles=self.row_tiles, cluster=int(self.cluster > 1))
        else:
            numbers.update(row_tiles=self.row_tiles, tagged=int(self.tagged))
        text = ",".join(f"{name}={number}" for name, number in numbers.items())
        return f"{self.algorithm}:{text}"

    def __str__(self) -> str:
        lines = [f"{self.algorithm}: {self.reason}"]
        if self.algorithm == "persistent":
            more = f", K split in {self.split}" * (self.split > 1)
            more += f", clusters of {self.cluster} blocks" * (self.cluster > 1)
            more += ", tagged words" * self.tagged
            more += ", a part of the weights streamed" * (self.streamed_slices > 0)
            lines.append(
                f"  grid {self.blocks} x {self.groups} x {self.directions}, "
                f"{self.launches} launch(es) for the batch; a block: {16 * self.row_tiles} rows of "
                f"weights ({self.units} units) by {8 * self.batch_tiles} rows of the batch, "
                f"{self.shared_bytes} bytes of shared memory" + more
            )
        lines.append(
            f"  a step: {self.flops:.3g} FLOPs, {self.l2_bytes:.3g} bytes from L2, "
            f"{self.synchronizations} synchronization(s), about {self.step_us:.2f} us, of which "
            f"{self.path_us:.2f} us of dependent instructions; in all {self.total_us:.0f} us, with "
            f"{self.memory_bytes:.3g} bytes of weights from memory"
        )
        if self.measured_step_us is not None and self.measured_total_us is not None:
            lines.append(
                f"  with the rates measured on this GPU: a step about "
                f"{self.measured_step_us:.2f} us, in all {self.measured_total_us:.0f} us"
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class LayerPlan:
    """The plans of both passes, which are chosen independently.

    Attributes
    ----------
    forward, backward : Plan
        How each pass is run.
    """

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
    """Tell how the CUDA kernels would run the steps of a layer.

    Parameters
    ----------
    mode : str
        The cell, as for `fastrnn.kernels.forward`.
    steps, rows, hidden : int
        T, N and H. The product with the inputs comes before the steps and is not included.
    directions : int
        1 or 2.
    dtype : {'float32', 'float16', 'bfloat16'}
        Type of the arrays.
    tf32 : bool, optional
        As for `fastrnn.kernels.forward`.
    algorithm : str, optional
        As for `fastrnn.kernels.forward`.
    device : int, str or DeviceFacts
        A GPU of this machine, which is asked how many blocks of a kernel it holds at once; a name
        in `DEVICES`; or the facts about another GPU.

    Returns
    -------
    LayerPlan
        The plans of both passes; printed, they show the reason and the cost.

    Raises
    ------
    ValueError
        An unknown mode, type, algorithm or device, a size or measurement out of range, or an
        algorithm that cannot run the layer.
    RuntimeError
        CUDA failed.
    ModuleNotFoundError
        fastrnn was installed without its native library.
    """
    native = _native.library()
    found = _device(device)
    measured = _measured(found)

    def of_pass(backward: bool) -> Plan:
        layer = (backward, mode, dtype, steps, rows, hidden, directions, tf32)
        chosen = Plan(**native.plan(*layer, algorithm, found))
        if measured is None:
            return chosen
        cost = native.plan(*layer, chosen.selector(backward), measured)
        return replace(chosen, measured_step_us=cost["step_us"], measured_total_us=cost["total_us"])

    return LayerPlan(of_pass(False), of_pass(True))


def reason(
    mode: str,
    steps: int,
    rows: int,
    inputs: int,
    hidden: int,
    *,
    layers: int = 1,
    directions: int = 1,
    projection: int = 0,
    clip: Optional[Clip] = None,
    noise: Optional[Noise] = None,
    layer_norm: bool = False,
    dtype: str = "float32",
    reserve: bool = False,
    tf32: Optional[bool] = None,
    algorithm: Optional[str] = None,
    device: Union[int, str] = "cpu",
) -> str:
    """Tell how layers run on this machine, and why.

    Parameters
    ----------
    mode, layers, directions, clip, noise, layer_norm, reserve, tf32, algorithm
        As in `fastrnn.kernels.forward`.
    steps, rows, inputs, hidden : int
        T, N, I and H.
    projection : int
        P of projected layers; 0: they are not.
    dtype : {'float32', 'float64', 'float16', 'bfloat16'}
        Type of the arrays; a GPU has no float64.
    device : int or 'cpu'
        The CPU, or the number of a GPU of this machine.

    Returns
    -------
    str
        A line for forward and, with a reserve, one for backward; of several layers, two each: for
        the first layer and for those above it.

    Raises
    ------
    ValueError
        Invalid mode, size, type or device, or an algorithm that cannot run the layers.
    RuntimeError
        CUDA or oneDNN failed.
    ModuleNotFoundError
        fastrnn was installed without its native library.
    """
    if device != "cpu" and (not isinstance(device, int) or isinstance(device, bool)):
        raise ValueError(f"device is {device!r}, expected 'cpu' or the number of a GPU")
    number = None if device == "cpu" else int(device)
    text: str = _native.library().reason(
        mode,
        dtype,
        steps,
        rows,
        inputs,
        hidden,
        directions,
        layers,
        projection,
        checked_clip(clip),
        checked_noise(noise),
        checked_flag("layer_norm", layer_norm),
        reserve,
        tf32,
        algorithm,
        number,
    )
    return text


def _measured(device: Union[int, Dict[str, Any]]) -> Optional[Dict[str, Any]]:
    """Return the facts about a GPU of this machine with its measured rates, if there are any."""
    if not isinstance(device, int):
        return None
    found = verdict.of_process(device).verdict
    if found is None or not found.rates:
        return None
    return asdict(DeviceFacts(**{**_native.library().device_facts(device), **found.rates}))


def _device(device: Union[int, str, DeviceFacts]) -> Union[int, Dict[str, Any]]:
    if isinstance(device, int):
        return device
    if isinstance(device, DeviceFacts):
        return asdict(device)
    if device not in DEVICES:
        raise ValueError(f"device is {device!r}, expected one of {', '.join(DEVICES)}")
    return asdict(DEVICES[device])
