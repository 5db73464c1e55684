"""What is benchmarked: layers, their sizes, and how they are called. Plain data.

The full grid is not every combination, which would be thousands. It varies one axis at a time
around anchors: the tutorial's model, which is what fastrnn is for, and one layer of 768 with 16
rows and 1024 steps, which is where cuDNN is at its best. On a GPU cells and types are crossed with
the axis that decides which kernel runs, H, wholly for the LSTM and in part for the others; the
other axes, which scale the work, are walked by the LSTM in TF32 and in float16. Its rows come in
the order of importance, as the time on a GPU may end before they do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import List, Sequence

import numpy as np

CELLS = ("lstm", "gru", "rnn_tanh", "rnn_relu")
ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
HIDDEN = (128, 256, 512, 650, 768, 1000, 1024, 1500, 2048)
SOME_WIDTHS = (128, 512, 1024, 2048)
BATCHES = (1, 8, 16, 32, 64, 128)
STEPS = (1, 35, 100, 1024)
# Of a layer, or of the language model around it: one update, and one character written.
TASKS = ("layer", "lm training", "lm generation")
# Another process that never waits, while calls are timed: none, one that the system may move, or
# one that stays on a core.
NEIGHBOURS = ("", "moving", "pinned")


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
    neighbour: str = ""
    vocabulary: int = 80  # of the language model
    optimizer: str = "adam"  # or sgd

    def __post_init__(self) -> None:
        if self.cell not in CELLS:
            raise ValueError(f"cell is {self.cell!r}, expected one of {', '.join(CELLS)}")
        if self.task not in TASKS:
            raise ValueError(f"task is {self.task!r}, expected one of {', '.join(TASKS)}")
        if self.neighbour not in NEIGHBOURS:
            raise ValueError(f"neighbour is {self.neighbour!r}, expected one of {NEIGHBOURS}")
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
        words += [f"V={self.vocabulary}"] * (self.vocabulary != 80)
        words += [self.optimizer] * (self.optimizer != "adam")
        words += ["hybrid"] * self.hybridize + ["ragged"] * self.ragged
        words += ["tf32"] * self.tf32 + [self.dtype] * (self.dtype != "float32")
        words += [f"beside a {self.neighbour} process"] * bool(self.neighbour)
        return " ".join(words)

    @property
    def directions(self) -> int:
        """D."""
        return 2 if self.bidirectional else 1

    def layer_inputs(self, layer: int) -> int:
        """Size of a layer's input: I, or the D*H of the layer below."""
        return self.inputs if layer == 0 else self.directions * self.hidden

    def lengths(self) -> np.ndarray:
        """Each row's number of steps [N], int32: from T down to about a quarter of it."""
        if not self.ragged:
            return np.full(self.batch, self.steps, np.int32)
        least = max(1, self.steps // 4)
        return np.linspace(self.steps, least, self.batch).round().astype(np.int32)


TUTORIAL = Case("lstm")
TUTORIAL_TF32 = Case("lstm", tf32=True)  # as a GPU computes it by default
LONG = Case("lstm", layers=1, inputs=768, hidden=768, batch=16, steps=1024)
MEDIUM = Case("lstm", hidden=200, inputs=200, batch=20, steps=20)
SMALL = Case("lstm", layers=1, hidden=32, inputs=32, batch=1, steps=35)
LANGUAGE_MODEL = [
    Case("lstm", task="lm training"),
    Case("lstm", batch=1, steps=1, train=False, task="lm generation"),
    Case("lstm", steps=1, train=False, task="lm generation"),  # 32 texts at once
]

# The other models of the presets: the word model with 10,000 words, and the demo.
UPDATE = Case("lstm", task="lm training")
WORDS = replace(UPDATE, inputs=200, hidden=200, batch=20, steps=20, vocabulary=10_000)
WORDS = replace(WORDS, optimizer="sgd")
DEMO = replace(UPDATE, layers=1, inputs=64, hidden=256, batch=16, steps=64)


def cpu_quick() -> List[Case]:
    """The CPU's cases that a run has by default."""
    one_step = Case("lstm", batch=1, steps=1, train=False)
    return [
        Case("lstm"),
        Case("gru", steps=35),  # the other cells briefly: each row has to be checked, too
        Case("rnn_tanh", steps=35),
        Case("lstm", layers=1, hidden=256, inputs=64),
        Case("lstm", hidden=650, inputs=650, batch=20, steps=35),
        Case("gru", layers=1, hidden=512, inputs=128, batch=64, steps=35, bidirectional=True),
        Case("lstm", layers=1, hidden=128, inputs=32, batch=1, steps=35),
        Case("lstm", layers=1, hidden=256, inputs=64, ragged=True),
        Case("lstm", train=False),
        Case("gru", hidden=256, batch=8, train=False),
        one_step,
        replace(one_step, hybridize=True),
        replace(one_step, cell="rnn_tanh"),
        MEDIUM,
        replace(MEDIUM, neighbour="pinned"),
        replace(SMALL, hybridize=True),
        *LANGUAGE_MODEL,
        WORDS,
        DEMO,
    ]


def cpu_full() -> List[Case]:
    """All of the CPU's cases."""
    one_step = Case("lstm", batch=1, steps=1, train=False)
    return _unique(
        [
            *cpu_quick(),
            *(Case(cell) for cell in CELLS),
            *(replace(one_step, cell=cell) for cell in CELLS),
            replace(one_step, layers=1, hidden=256, inputs=64),
            replace(one_step, batch=32),
            replace(MEDIUM, neighbour="moving"),
            *(Case(cell, neighbour=neighbour) for cell in CELLS for neighbour in NEIGHBOURS),
            *(replace(SMALL, cell=cell, train=train) for cell in CELLS for train in (True, False)),
            replace(SMALL, cell="gru", hidden=8, inputs=8, batch=4, steps=6, hybridize=True),
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
    inference = replace(TUTORIAL_TF32, train=False)
    return [
        *(replace(TUTORIAL_TF32, cell=cell) for cell in CELLS),
        *typed(TUTORIAL)[1:],
        inference,
        replace(inference, batch=1, steps=1),
        _short(inference),
        replace(_short(LONG), train=True),
        replace(_short(LONG), train=False),
        Case("gru", layers=1, hidden=512, inputs=128, bidirectional=True, dtype="bfloat16"),
        replace(TUTORIAL_TF32, ragged=True),
        *(replace(case, tf32=True) for case in LANGUAGE_MODEL),
    ]


def gpu_full() -> List[Case]:
    """All of the GPU's cases, the most important ones first."""
    train, infer = TUTORIAL_TF32, replace(TUTORIAL_TF32, train=False)
    cases = gpu_quick()
    for case in typed(LONG):
        cases += [case, replace(case, train=False)]
    cases += [replace(_short(LONG), hidden=h, inputs=h) for h in (256, 512, 1024)]
    # Widths: all types of the LSTM, two of the GRU, one of the others.
    for case in typed(TUTORIAL):
        cases += _widths(case)
    for case in (train, _short(train)):
        cases += _widths(replace(case, cell="gru"))
    cases += _widths(infer) + _widths(replace(infer, cell="gru"), SOME_WIDTHS)
    for case in typed(infer)[2:]:
        cases += _widths(case, SOME_WIDTHS)
    cases += [replace(infer, cell=cell) for cell in CELLS] + typed(infer)
    for cell in ("rnn_tanh", "rnn_relu"):
        cases += _widths(replace(train, cell=cell), SOME_WIDTHS)
    # The batch and the length, in both kinds of arithmetic; single rows as in writing text.
    for case in (train, _short(train)):
        cases += [replace(case, batch=batch) for batch in BATCHES]
        cases += [replace(case, steps=steps) for steps in STEPS]
    for case in (infer, _short(infer)):
        cases += [replace(case, batch=1, steps=steps) for steps in STEPS]
    cases += [replace(infer, batch=batch) for batch in BATCHES]
    # Options.
    cases += [replace(train, cell="gru", ragged=True), replace(_short(train), ragged=True)]
    cases += [replace(train, layers=1, bidirectional=True, cell=cell) for cell in CELLS]
    cases += [replace(train, bidirectional=True), replace(_short(train), bidirectional=True)]
    cases += [replace(train, layers=1, bidirectional=True, ragged=True), replace(train, layers=1)]
    return _unique(cases)


def typed(case: Case) -> List[Case]:
    """The case in each kind of arithmetic that a GPU has: TF32, float32, and both of 16 bits."""
    plain = replace(case, tf32=False, dtype="float32")
    short = [replace(plain, dtype=dtype) for dtype in ("float16", "bfloat16")]
    return [replace(plain, tf32=True), plain, *short]


def _short(case: Case) -> Case:
    return replace(case, tf32=False, dtype="float16")


def _widths(case: Case, widths: Sequence[int] = HIDDEN) -> List[Case]:
    return [replace(case, hidden=hidden) for hidden in widths]


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
