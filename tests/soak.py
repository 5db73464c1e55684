"""Long tests, run by hand: random layers against the oracle, and many steps of training.

    python tests/soak.py kernels --seed 1 --count 10000
    python tests/soak.py layers --seed 1 --count 10000
    python tests/soak.py steps --seed 1 --count 10000

`kernels` takes random shapes and options of `fastrnn.kernels`, `layers` those of the Gluon layers,
forward and backward. `steps` trains layers of changing shapes, with a call that fails now and then,
and stops if memory keeps growing.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import reference as ref
from kernel_cases import KernelCase, assert_agrees

# Growth of a process after its first half, in bytes, that is not a leak: the allocator's pieces.
SLACK = 32 << 20


def size(pick: random.Random, most: int) -> int:
    """Draw a size: small ones as often as those of each larger power of two."""
    return pick.randint(1, 2 ** pick.randint(0, most.bit_length() - 1))


def check_kernels(pick: random.Random) -> str:
    """Compare one random case of `fastrnn.kernels` with the oracle; return its description."""
    steps, rows, hidden = size(pick, 64), size(pick, 64), size(pick, 256)
    options: Dict[str, Any] = {
        "directions": pick.randint(1, 2),
        "layers": pick.choice([1, 1, 2, 3]),
        "seed": pick.randrange(2**31),
    }
    if pick.random() < 0.4:
        options["lengths"] = [pick.randint(0, steps) for _ in range(rows)]
    case = KernelCase(pick.choice(ref.MODES), steps, rows, size(pick, 64), hidden, **options)
    assert_agrees(case)
    return repr(case)


def check_layers(pick: random.Random) -> str:
    """Compare one random Gluon layer with the oracle; return its description."""
    from cases import LayerCase

    options: Dict[str, Any] = {
        "mode": pick.choice(ref.MODES),
        "T": size(pick, 32),
        "N": size(pick, 32),
        "I": size(pick, 32),
        "H": size(pick, 64),
        "layers": pick.choice([1, 1, 2, 3]),
        "directions": pick.randint(1, 2),
        "layout": pick.choice(["TNC", "NTC"]),
        "lengths": pick.random() < 0.3,
        "states": pick.random() < 0.5,
        "seed": pick.randrange(2**31),
    }
    case = LayerCase(**options)
    layer = case.layer()
    if pick.random() < 0.5:
        layer.hybridize()
    case.check(layer)
    return repr(options)


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Steps:
    """Trains layers that are kept, in batches of changing shapes."""

    def __init__(self) -> None:
        import fastrnn
        from fastrnn.mxnet import import_mxnet

        self.mx = import_mxnet()
        self.layers = [
            fastrnn.LSTM(24, 2, dropout=0.2, bidirectional=True, input_size=8),
            fastrnn.GRU(40, use_sequence_length=True, input_size=8),
            fastrnn.RNN(16, activation="tanh", input_size=8),
        ]
        self.trainers = []
        for number, layer in enumerate(self.layers):
            layer.initialize()
            if number % 2:
                layer.hybridize()
            self.trainers.append(self.mx.gluon.Trainer(layer.collect_params(), "adam"))

    def __call__(self, pick: random.Random) -> str:
        """Train one step; every tenth call is one that has to fail."""
        which = pick.randrange(len(self.layers))
        layer, nd = self.layers[which], self.mx.nd
        steps, rows = size(pick, 32), size(pick, 32)
        lengths = [nd.array([pick.randint(0, steps) for _ in range(rows)])] if which == 1 else []
        states = pick.choice([None, layer.begin_state(rows)])
        if pick.random() < 0.1:
            try:
                layer(nd.ones((steps, rows, 9)), states, *lengths)
            except ValueError:
                return "failed as expected"
            raise AssertionError("a wrong input was accepted")
        with self.mx.autograd.record():
            result = layer(nd.random.uniform(shape=(steps, rows, 8)), states, *lengths)
            output = result if states is None else result[0]
            loss = (output**2).mean()
        loss.backward()
        self.trainers[which].step(1)
        assert np.isfinite(loss.asscalar())
        return f"{type(layer).__name__} of {steps} steps and {rows} rows"


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["kernels", "layers", "steps"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=10000)
    options = parser.parse_args()
    pick = random.Random(options.seed)
    checks: Dict[str, Callable[[], Callable[[random.Random], str]]] = {
        "kernels": lambda: check_kernels,
        "layers": lambda: check_layers,
        "steps": Steps,
    }
    check = checks[options.what]()
    begin, half = time.monotonic(), 0
    for number in range(options.count):
        state = pick.getstate()
        try:
            check(pick)
        except BaseException:
            print(f"number {number} of seed {options.seed} failed", flush=True)
            pick.setstate(state)
            raise
        if number == options.count // 2:
            half = resident()
    seconds, grown = time.monotonic() - begin, resident() - half
    print(
        f"{options.what}: {options.count} of seed {options.seed} in {seconds:.0f} s; "
        f"{resident() >> 20} MiB resident, {grown / 2**20:+.1f} since half of them"
    )
    return int(grown > SLACK)


if __name__ == "__main__":
    sys.exit(main())
