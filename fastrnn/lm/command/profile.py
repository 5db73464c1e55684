"""Where the time of a training step goes: ``fastrnn train --profile``."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

from fastrnn.lm.training import Training
from fastrnn.mxnet import import_mxnet

mx = import_mxnet()

WARM_UP, STEPS = 3, 20
# MXNet's operators that a model consists of; its others count as "other".
_OPERATORS = {
    "Embedding": "embedding",
    "_fastrnn_rnn": "recurrent layers",
    "RNN": "recurrent layers",
    "Dropout": "dropout",
    "FullyConnected": "dense layers",
}
_BACKWARD = "_backward_"

Row = Tuple[str, float]  # name, seconds in a step


def profile(training: Training, steps: int = STEPS) -> List[Row]:
    """Train for some steps, and measure their parts.

    Each part is waited for, so that none hides behind another, and MXNet runs each operator by
    itself. Both cost time: "undisturbed" is what the same steps take as usual.

    Returns
    -------
    list of (str, float)
        Seconds in a step: the parts; after "forward" and "backward", indented, what they consist
        of; "together"; and "undisturbed".
    """
    steps_of = training.train_endlessly()
    for _ in islice(steps_of, WARM_UP):
        pass
    undisturbed = _seconds(steps_of, steps)
    seconds: Dict[str, float] = defaultdict(float)

    @contextmanager
    def part(name: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        mx.nd.waitall()
        seconds[name] += time.perf_counter() - begin

    # MXNet deletes the file of this name, and writes it when the process ends: not /dev/null.
    folder = tempfile.mkdtemp(prefix="fastrnn-profile-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    trace = str(Path(folder, "trace.json"))
    mx.profiler.set_config(profile_all=True, aggregate_stats=True, filename=trace)
    training.part = part
    mx.profiler.set_state("run")
    try:
        together = _seconds(steps_of, steps)
    finally:
        mx.profiler.set_state("stop")
        training.part = nullcontext
    found = json.loads(mx.profiler.dumps(reset=True, format="json"))["Time"]["operator"]
    operators = {name: of_name["Total"] / 1e3 / steps for name, of_name in found.items()}
    rows: List[Row] = []
    for name, total in seconds.items():
        rows.append((name, total / steps))
        if name in ("forward", "backward"):
            rows += _details(operators, _BACKWARD * (name == "backward"), total / steps)
    return [*rows, ("together", together), ("undisturbed", undisturbed)]


def _seconds(steps_of: Iterator[object], steps: int) -> float:
    mx.nd.waitall()
    begin = time.perf_counter()
    for _ in islice(steps_of, steps):
        pass
    mx.nd.waitall()
    return (time.perf_counter() - begin) / steps


def _details(operators: Dict[str, float], prefix: str, total: float) -> List[Row]:
    """What a pass consists of; the names of its operators have a prefix."""
    found: Dict[str, float] = defaultdict(float)
    for operator, name in _OPERATORS.items():
        found["  " + name] += operators.get(prefix + operator, 0.0)
    rows = [(name, seconds) for name, seconds in found.items() if seconds]
    return [*rows, ("  other", max(0.0, total - sum(seconds for _, seconds in rows)))]


def table(rows: List[Row]) -> str:
    """The rows in milliseconds, with their share of all parts."""
    together = dict(rows)["together"]
    lines = [f"{'part':20}{'ms':>10}{'share':>8}"]
    lines += [
        f"{name:20}{1e3 * seconds:10.2f}{seconds / together:8.1%}" for name, seconds in rows[:-1]
    ]
    return "\n".join([*lines, f"{'undisturbed':20}{1e3 * rows[-1][1]:10.2f}"])
