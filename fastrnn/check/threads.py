"""Measures on how many threads the CPU's kernels are fastest."""

from __future__ import annotations

import math
from functools import partial
from typing import Dict, List, NamedTuple, Tuple

from fastrnn import _native
from fastrnn.check.kernels import Call
from fastrnn.check.kinds import CPU
from fastrnn.check.problems import Shape
from fastrnn.check.timing import in_turns, unsolved

# Another number than fastrnn's own choice has to take this share of its time, in the geometric
# mean: times vary, and the choice holds for layers that are not measured.
GAIN = 0.85
# Small and large layers, of few rows and many.
_SHAPES = (
    Shape("lstm", 50, 1, 256, 1, False),
    Shape("lstm", 20, 32, 256, 1, False),
    Shape("gru", 20, 16, 512, 1, False),
    Shape("gru", 50, 64, 64, 1, False),
)


class Threads(NamedTuple):
    """The numbers that were measured, with their time as a share of fastrnn's own choice's."""

    shares: Dict[int, float]
    usual: int  # fastrnn's own choice

    @property
    def chosen(self) -> int:
        """The number to take; 0: fastrnn's own choice."""
        best = min(self.shares, key=lambda count: self.shares[count])
        return best if self.shares[best] < GAIN else 0


def measure(processors: int, seconds: float, rounds: int) -> Threads:
    """Run both passes of a few layers on 1, 2, 4, ... threads, at most one for each processor."""
    library = _native.library()
    library.set_cpu_threads(0)
    usual = int(library.cpu_threads())
    counts = {usual, processors, *(2**k for k in range(processors.bit_length()))}
    ordered = sorted(count for count in counts if count <= processors)
    logs = dict.fromkeys(ordered, 0.0)
    try:
        for shape in _SHAPES:
            times = _times(shape, ordered, seconds, rounds)
            own = times[ordered.index(usual)]
            for count, time in zip(ordered, times):
                logs[count] += math.log(time / own) / len(_SHAPES)
    finally:
        library.set_cpu_threads(0)
    return Threads({count: round(math.exp(log), 3) for count, log in logs.items()}, usual)


def _times(shape: Shape, counts: List[int], seconds: float, rounds: int) -> Tuple[float, ...]:
    call = Call(unsolved(shape), "float32", CPU, None)

    def run(count: int) -> None:
        _native.library().set_cpu_threads(count)
        call.backward()

    return tuple(in_turns([partial(run, count) for count in counts], seconds, rounds))
