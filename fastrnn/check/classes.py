"""The classes of kernels that plans choose on a device, and how to run each of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from fastrnn import _native, plans
from fastrnn.cell import GATES
from fastrnn.check.kinds import CPU, MATHS, Device, Kind

STEPWISE = "stepwise"
# Products of a step and gate. Most kernels of layers with options do not wait for other blocks, so
# a larger layer shows nothing more.
_QUICK, _QUICK_WITH_OPTIONS = 32 * 1024**2, 4 * 10**6


class KernelClass(NamedTuple):
    """The kernels that run a pass of a kind of layer in one way."""

    kind: Kind
    backward: bool
    way: str  # the algorithm, and how blocks exchange

    def __str__(self) -> str:
        return f"{self.kind}, {'backward' if self.backward else 'forward'}, {self.way}"


class Variant(NamedTuple):
    """One kernel of a class: its tiles, and the sizes for which plans choose it."""

    algorithm: Optional[str]  # selects it, as for `fastrnn.kernels.forward`
    small: Optional[str]  # selects it for a small layer; None: there is no such choice
    rows: int
    hidden: int


Found = Dict[KernelClass, List[Variant]]


@dataclass(frozen=True)
class Sizes:
    """The batch and hidden sizes that plans are asked about, and the numbers of steps."""

    rows: Tuple[int, ...] = (1, 4, 8, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128, 256)
    hidden: Tuple[int, ...] = (8, *range(32, 1025, 32), 1152, 1280, 1408, 1536, 1792, 2048, 2304)
    steps: Tuple[int, ...] = (5, 20, 100, 1000)

    def layers(self, plain: bool) -> List[Tuple[int, int, int]]:
        """Return T, N and H, the largest layers first whose reference does not take long."""
        quick = _QUICK if plain else _QUICK_WITH_OPTIONS

        def key(sizes: Tuple[int, int, int]) -> Tuple[bool, int]:
            work = sizes[1] * sizes[2] ** 2
            return work > quick, work if work > quick else -work

        return sorted(product(self.steps, self.rows, self.hidden), key=key)


def find(kind: Kind, device: Device, sizes: Sizes, steps: int) -> Found:
    """Return the classes that plans choose for a kind, each with its kernels.

    `steps` is the T with which the kernels are run.
    """
    if device == CPU:
        return _on_cpu(kind, sizes, steps)
    found: Found = {}
    seen = set()
    for of_plan, rows, hidden in sizes.layers(kind.plain):
        for backward in (False, True):
            plan = _plan(kind, backward, of_plan, rows, hidden, None, device)
            key = (backward, _tiles(plan))
            if key in seen:
                continue
            algorithm = _selected(kind, plan, backward, rows, hidden, steps, device)
            if algorithm is None:
                continue  # not for this size, where the other pass has no such plan
            seen.add(key)
            cls = KernelClass(kind, backward, way(kind.cell, plan, backward))
            small = algorithm
            if plan.streamed_slices:
                small += ",shared_slices=0"
            found.setdefault(cls, []).append(Variant(algorithm, small, rows, hidden))
    return found


def way(cell: str, plan: plans.Plan, backward: bool) -> str:
    """Name the algorithm, and how blocks exchange."""
    if plan.algorithm == STEPWISE:
        return STEPWISE
    exchange = "tagged words" if plan.tagged else "flags"
    if plan.cluster > 1:
        exchange = "clusters"
    elif backward and GATES[cell] > 1:
        exchange = "scatter" if plan.row_tiles == 1 else "sums through L2"
    return f"persistent ({exchange}{', streaming' * (plan.streamed_slices > 0)})"


def _tiles(plan: plans.Plan) -> Tuple[Any, ...]:
    """What makes a kernel: plans that agree in it run the same one."""
    return (
        plan.algorithm,
        plan.row_tiles,
        plan.batch_tiles,
        plan.cluster > 1,
        plan.tagged,
        plan.streamed_slices > 0,
        plan.directions,
    )


def _plan(
    kind: Kind,
    backward: bool,
    steps: int,
    rows: int,
    hidden: int,
    algorithm: Optional[str],
    device: Any,
) -> plans.Plan:
    dtype, tf32 = MATHS[kind.math]
    layer = kind.layer(steps, rows, hidden)
    sizes = (steps, rows, hidden, kind.directions)
    options = (tf32, algorithm, device, layer.projection, layer.clip, layer.rates, kind.layer_norm)
    choice = _native.library().plan(backward, kind.cell, dtype, *sizes, *options)
    return plans.Plan(**choice)


def _selected(
    kind: Kind, plan: plans.Plan, backward: bool, rows: int, hidden: int, steps: int, device: Any
) -> Optional[str]:
    """Return what selects the kernel of a plan, or None where nothing does.

    A call that keeps a reserve plans both passes. Where forward has no plan with backward's tiles
    it may do without: ``auto`` instead of ``persistent``.
    """
    selector = plan.selector(backward)
    for algorithm in dict.fromkeys([selector, selector.replace("persistent", "auto")]):
        try:
            if backward:
                _plan(kind, False, steps, rows, hidden, algorithm, device)
            chosen = _plan(kind, backward, steps, rows, hidden, algorithm, device)
        except ValueError:
            continue
        if _tiles(chosen) == _tiles(plan):
            return algorithm
    return None


def _on_cpu(kind: Kind, sizes: Sizes, steps: int) -> Found:
    """The classes on the CPU: whose products, and how threads share them.

    Each has its smallest layer, for the reference's sake.
    """
    found: Found = {}
    layers = sorted(product(sizes.rows, sizes.hidden), key=lambda size: size[0] * size[1] ** 2)
    for rows, hidden in layers:
        layer = kind.layer(steps, rows, hidden)
        text = plans.reason(
            kind.cell,
            steps,
            rows,
            hidden,
            hidden,
            directions=kind.directions,
            dtype=MATHS[kind.math][0],
            projection=layer.projection,
            clip=layer.clip,
            noise=layer.rates,
            layer_norm=kind.layer_norm,
            reserve=True,
        )
        for backward, line in enumerate(text.strip().splitlines()):
            name = re.sub(r"\d+", "several", line.split(": ", 1)[1])
            cls = KernelClass(kind, bool(backward), name)
            found.setdefault(cls, [Variant(None, None, rows, hidden)])
    return found
