"""The kinds of layers: cells, directions and options, and how products can be computed."""

from __future__ import annotations

import os
from typing import Any, Dict, List, NamedTuple, Tuple, Union

from fastrnn import _native
from fastrnn.cell import GATES
from fastrnn.check.problems import Shape

CPU = "cpu"
Device = Union[str, int]  # CPU, or the number of a GPU

# How products are computed: the arrays' type, and whether float32 is rounded to TF32.
MATHS: Dict[str, Tuple[str, bool]] = {
    "tf32": ("float32", True),
    "float16": ("float16", False),
    "float32": ("float32", False),
    "bfloat16": ("bfloat16", False),
    "float64": ("float64", False),
}
# The compute capability that each needs; what is not there, GPUs do not have.
CAPABILITY = {"tf32": 80, "float16": 70, "float32": 70, "bfloat16": 80}
# The cells that have options of `Kind`, and these options.
_OPTIONS: List[Tuple[Tuple[str, ...], Dict[str, Any]]] = [
    (("lstm",), {"projected": True}),
    (("lstm",), {"clipped": True}),
    (tuple(GATES), {"noise": True}),
    (("lstm", "gru"), {"layer_norm": True}),
    (("lstm",), {"projected": True, "clipped": True}),
    (("lstm",), {"projected": True, "noise": True}),
    (("lstm",), {"clipped": True, "noise": True}),
    (("lstm",), {"projected": True, "clipped": True, "noise": True}),
]


class Kind(NamedTuple):
    """What is known of a layer when its graph is traced, besides its sizes."""

    cell: str
    math: str
    directions: int
    lengths: bool
    projected: bool = False
    clipped: bool = False
    noise: bool = False
    layer_norm: bool = False

    def __str__(self) -> str:
        more = ", 2 directions" * (self.directions == 2) + ", lengths" * self.lengths
        more += ", projected" * self.projected + ", clipped" * self.clipped
        more += ", noise" * self.noise + ", layer_norm" * self.layer_norm
        return f"{self.cell} {self.math}{more}"

    @property
    def plain(self) -> bool:
        """Whether it has no options."""
        return not (self.projected or self.clipped or self.noise or self.layer_norm)

    def layer(self, steps: int, rows: int, hidden: int) -> Shape:
        """Return a layer of this kind."""
        return Shape(self.cell, steps, rows, hidden, *self[2:])


def maths_of(device: Device) -> List[str]:
    """Return how products can be computed on a device."""
    if device == CPU:
        return ["float32", "float64"]
    capability = _native.library().device_facts(device)["capability"]
    return [math for math, needed in CAPABILITY.items() if capability >= needed]


def usual_maths(device: Device) -> List[str]:
    """Return those of `maths_of` that MXNet's layers use in this process."""
    other = "float32" if "tf32" in maths_of(device) and tf32_is_wanted() else "tf32"
    return [math for math in maths_of(device) if math not in (other, "bfloat16", "float64")]


def tf32_is_wanted() -> bool:
    """Whether float32 products may be rounded, as the native library reads the environment."""
    wanted = os.environ.get("FASTRNN_TF32", "1") != "0"
    return wanted and os.environ.get("NVIDIA_TF32_OVERRIDE") != "0"


def plain_kinds(maths: List[str]) -> List[Kind]:
    """Return the plain kinds of layers, those with the same reference next to each other."""
    return [
        Kind(cell, math, directions, lengths)
        for cell in GATES
        for directions in (1, 2)
        for lengths in (False, True)
        for math in maths
    ]


def optional_kinds(maths: List[str]) -> List[Kind]:
    """Return the kinds that are not plain, in the same order; those with one option come first."""
    return [
        kind._replace(**options)
        for cells, options in _OPTIONS
        for kind in plain_kinds(maths)
        if kind.cell in cells
    ]
