"""Processor time of fastrnn.torch's layers beside PyTorch's, on the CPU with one thread.

    python -m bench.pytorch_calls [--packed] [--cells lstm,gru] [--units 16,64,256,1024]

The rule by which ``fastrnn.torch`` leaves small calls to PyTorch comes from this. Each line is a
size, with PyTorch's time over fastrnn's, both on the kernels: of a call, and of one with its
backward pass. Other processes matter little, as the time is that of the process and the least of
several rounds.
"""

from __future__ import annotations

import argparse
import itertools
import resource
from functools import partial
from typing import Any, Callable, List

from bench.cases import CELLS, Case
from bench.peers.pytorch import module_of

STEPS, ROWS = (1, 2, 4, 10, 35, 100), (1, 8, 64)
ROUNDS = 6
MOST_PRODUCTS = 7e8  # T*N*H*H of a size that is timed


def _processor_time() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def ratio(first: Callable[[], None], second: Callable[[], None], seconds: float = 0.25) -> float:
    """The least processor time of one call over that of another, in turn."""
    calls = (first, second)
    start = _processor_time()
    for call in calls:
        call()
    count = max(1, int(seconds / ROUNDS / max(_processor_time() - start, 1e-5)))
    least = [float("inf")] * 2
    for _ in range(ROUNDS):
        for k, call in enumerate(calls):
            start = _processor_time()
            for _ in range(count):
                call()
            least[k] = min(least[k], (_processor_time() - start) / count)
    return least[0] / least[1]


def compare(case: Case, packed: bool) -> List[float]:
    """PyTorch's time over fastrnn's: of a call, and of one with its backward pass."""
    import torch

    import fastrnn.torch

    theirs, ours = (module_of(case, library) for library in (torch.nn, fastrnn.torch))
    ours._choice = "native"
    x: Any = torch.randn(case.steps, case.batch, case.inputs)
    if packed:
        lengths = [max(1, case.steps - row) for row in range(case.batch)]
        x = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths))

    def infer(layer: Any) -> None:
        with torch.no_grad():
            layer(x)

    def train(layer: Any) -> None:
        output, _ = layer(x)
        (output.data if packed else output).sum().backward()

    return [ratio(partial(call, theirs), partial(call, ours)) for call in (infer, train)]


def main() -> None:
    """Print a line for each size."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--packed", action="store_true", help="packed sequences")
    parser.add_argument("--cells", default=",".join(CELLS))
    parser.add_argument("--units", default="16,64,256,1024")
    options = parser.parse_args()
    torch.set_num_threads(1)
    units = [int(text) for text in options.units.split(",")]
    for cell, H, N, T in itertools.product(options.cells.split(","), units, ROWS, STEPS):
        if T * N * H * H < MOST_PRODUCTS:
            case = Case(cell, layers=1, inputs=H, hidden=H, batch=N, steps=T)
            infer, train = compare(case, options.packed)
            print(f"{cell} H={H} N={N} T={T}: {infer:.2f} {train:.2f}", flush=True)


if __name__ == "__main__":
    main()
