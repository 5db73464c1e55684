"""What is benchmarked: layers, their sizes, and how they are called. Plain data.

The full grid is not every combination, which would be thousands. It varies one axis at a time
around anchors: the tutorial's model, which is what fastrnn is for, and one layer of 768 with 16
rows and 1024 steps, which is where cuDNN is at its best. Cells, types and the way of calling are
crossed with the axis that decides which kernel runs, H; the other axes, which scale the work, are
walked with the LSTM alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import List

import numpy as np

CELLS = ("lstm", "gru", "rnn_tanh", "rnn_relu")
GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
HIDDEN = (128, 256, 512, 650, 768, 1000, 1024, 1500, 2048)
BATCHES = (1, 8, 16, 32, 64, 128)
STEPS = (1, 35, 100, 1024)
# Of a layer, or of the language model around it: one update, and one character written.
TASKS = ("layer", "lm training", "lm generation")


@dataclass(frozen=True)
class Case:
    """One row of the comparison. The defaults are the tutorial's model."""

    cell: str
    layers: int = 2
    inputs: int = 50
    hidden: int = 1000
    batch: int = 32
    steps: int = 100
    bidirectional: bool = False
    train: bool = True
    hybridize: bool = False
    dtype: str = "float32"  # or float16, bfloat16
    tf32: bool = False  # float32's products on a GPU may be in TF32
    ragged: bool = False
    task: str = "layer"

    def __post_init__(self) -> None:
        if self.cell not in CELLS:
            raise ValueError(f"cell is {self.cell!r}, expected one of {', '.join(CELLS)}")
        if self.task not in TASKS:
            raise ValueError(f"task is {self.task!r}, expected one of {', '.join(TASKS)}")
        if self.tf32 and self.dtype != "float32":
            raise ValueError(f"tf32 is True for {self.dtype}, expected it for float32 only")

    @property
    def name(self) -> str:
        """Such as ``lstm 2x1000 I=50 N=32 T=100 train``, and what differs from the usual."""
        words = [
            self.cell,
            f"{self.layers}x{self.hidden}" + (" bidirectional" if self.bidirectional else ""),
            f"I={self.inputs} N={self.batch} T={self.steps}",
            self.task if self.task != "layer" else "train" if self.train else "infer",
        ]
        words += ["hybrid"] * self.hybridize + ["ragged"] * self.ragged
        words += ["tf32"] * self.tf32 + [self.dtype] * (self.dtype != "float32")
        return " ".join(words)

    @property
    def directions(self) -> int:
        """D."""
        return 2 if self.bidirectional else 1

    def lengths(self) -> np.ndarray:
        """Each row's number of steps [N], int32: from T down to about a quarter of it."""
        if not self.ragged:
            return np.full(self.batch, self.steps, np.int32)
        least = max(1, self.steps // 4)
        return np.linspace(self.steps, least, self.batch).round().astype(np.int32)


TUTORIAL = Case("lstm")
LONG = Case("lstm", layers=1, inputs=768, hidden=768, batch=16, steps=1024)
LANGUAGE_MODEL = [
    Case("lstm", task="lm training"),
    Case("lstm", batch=1, steps=1, train=False, task="lm generation"),
]


def cpu_quick() -> List[Case]:
    """The CPU's cases that a run has by default."""
    one_step = Case("lstm", batch=1, steps=1, train=False)
    return [
        *(Case(cell) for cell in CELLS),
        Case("lstm", layers=1, hidden=256, inputs=64),
        Case("lstm", hidden=650, inputs=650, batch=20, steps=35),
        Case("gru", layers=1, hidden=512, inputs=128, batch=64, steps=35, bidirectional=True),
        Case("lstm", layers=1, hidden=128, inputs=32, batch=1, steps=35),
        Case("lstm", layers=1, hidden=256, inputs=64, ragged=True),
        Case("lstm", train=False),
        Case("gru", hidden=256, batch=8, train=False),
        one_step,
        replace(one_step, hybridize=True),
        replace(one_step, cell="gru"),
        replace(one_step, cell="rnn_tanh"),
        replace(one_step, layers=1, hidden=256, inputs=64),
        replace(one_step, batch=32),
        *LANGUAGE_MODEL,
    ]


def cpu_full() -> List[Case]:
    """All of the CPU's cases."""
    return _unique(
        [
            *cpu_quick(),
            Case("lstm", hidden=200, inputs=200, batch=20, steps=20),
            Case("gru", hidden=256, inputs=128, steps=35),
            Case("rnn_tanh", hidden=256, inputs=128, steps=35),
            *_around(TUTORIAL),
            *(replace(c, train=False) for c in _around(TUTORIAL)),
            *(Case(cell, train=False) for cell in CELLS),
            *(Case(cell, layers=1, hidden=512, bidirectional=True) for cell in CELLS),
        ]
    )


def gpu_quick() -> List[Case]:
    """The GPU's cases that a run has by default: each cell, each type, each way of calling."""
    inference = replace(TUTORIAL, train=False)
    return [
        *(Case(cell, tf32=True) for cell in CELLS),
        *typed(TUTORIAL)[1:],
        inference,
        replace(inference, batch=1, steps=1),
        replace(inference, dtype="float16"),
        replace(LONG, dtype="float16"),
        replace(LONG, dtype="float16", train=False),
        Case("gru", layers=1, hidden=512, inputs=128, bidirectional=True, dtype="bfloat16"),
        replace(TUTORIAL, tf32=True, ragged=True),
        *LANGUAGE_MODEL,
    ]


def gpu_full() -> List[Case]:
    """All of the GPU's cases."""
    tutorial = replace(TUTORIAL, tf32=True)
    cases = gpu_quick()
    for anchor in (tutorial, replace(tutorial, train=False)):
        cases += [replace(c, cell=cell) for cell in CELLS for c in _widths(anchor)]
        cases += [typed_case for c in _widths(anchor) for typed_case in typed(c)]
        cases += _around(anchor)
    for anchor in typed(LONG):
        cases += [anchor, replace(anchor, train=False)]
        cases += [replace(anchor, hidden=h, inputs=h) for h in (256, 512, 1024)]
    for cell in CELLS:
        cases += typed(replace(TUTORIAL, cell=cell, layers=1, bidirectional=True))
    return _unique(cases)


def typed(case: Case) -> List[Case]:
    """The case in each kind of arithmetic that a GPU has: TF32, float32, and both of 16 bits."""
    plain = replace(case, tf32=False, dtype="float32")
    short = [replace(plain, dtype=dtype) for dtype in ("float16", "bfloat16")]
    return [replace(plain, tf32=True), plain, *short]


def _widths(case: Case) -> List[Case]:
    return [replace(case, hidden=hidden) for hidden in HIDDEN]


def _around(case: Case) -> List[Case]:
    """The case with one of its sizes changed at a time, and with one of its options."""
    return [
        case,
        *_widths(case),
        *(replace(case, layers=1, batch=batch) for batch in BATCHES),
        *(replace(case, batch=batch) for batch in BATCHES),
        *(replace(case, steps=steps) for steps in STEPS),
        *(replace(case, steps=steps, batch=1) for steps in STEPS),
        replace(case, layers=1),
        replace(case, bidirectional=True),
        replace(case, ragged=True),
        replace(case, layers=1, bidirectional=True, ragged=True),
    ]


def _unique(cases: List[Case]) -> List[Case]:
    return list(dict.fromkeys(cases))


def grid(device: str, full: bool = False) -> List[Case]:
    """The cases of a run on ``cpu`` or ``cuda``."""
    if device == "cuda":
        return gpu_full() if full else gpu_quick()
    return cpu_full() if full else cpu_quick()
