"""fastrnn's layers against `mx.gluon.rnn`, in pairs: each round times MXNet's call, then ours.

    pytest bench/

Both get the same weights and input, and their results are compared before anything is timed. The
table in the end shows the median times, their ratio, and the peak memory of a training process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import cases
import numpy as np
import pytest

# Seconds to spend on one case, and the bounds on its rounds.
BUDGET, LEAST, MOST = 6.0, 3, 200
TOLERANCE = 1e-4  # sums over thousands of float32 rows, in another order
# With 1000 ReLU units and 100 steps MXNet's gradients are 1e-3 from a float64 reference,
# fastrnn's 3e-7.
RELU_TOLERANCE = 5e-3


def rounds_for(seconds):
    """How often a pair that takes so long is timed."""
    return max(LEAST, min(MOST, int(BUDGET / seconds)))


def assert_same(case, ours, theirs):
    """Fail unless both calls give the same arrays, up to rounding."""
    tolerance = RELU_TOLERANCE if case.cell == "rnn_relu" else TOLERANCE
    for actual, expected in zip(ours(), theirs()):
        reference = expected.asnumpy()
        error = np.linalg.norm(actual.asnumpy() - reference)
        assert error <= tolerance * np.linalg.norm(reference)


@pytest.mark.parametrize(
    "case",
    cases.TRAINING + cases.SIZES + cases.INFERENCE + cases.ONE_STEP,
    ids=lambda case: case.name.replace(" ", "-"),
)
def test_layer(benchmark, case, rows):
    ours, theirs = case.pair()
    assert_same(case, ours, theirs)
    mxnet_times = []

    def time_mxnet():
        begun = time.perf_counter()
        theirs()
        mxnet_times.append(time.perf_counter() - begun)

    time_mxnet()
    rounds = rounds_for(mxnet_times.pop())
    benchmark.pedantic(ours, setup=time_mxnet, rounds=rounds, warmup_rounds=1)
    mxnet = median(mxnet_times[1:])
    rows.add(benchmark, case.name, benchmark.stats.stats.median, mxnet)


@pytest.mark.parametrize("case", cases.TRAINING, ids=lambda case: case.cell)
def test_peak_memory(benchmark, case, rows):
    """Peak resident memory of a process that trains, beyond that of one that has only imported."""
    script = str(Path(__file__).with_name("memory.py"))
    peaks = {}

    def measure():
        for library in ("nothing", "fastrnn", "mxnet"):
            run = [sys.executable, script, library, case.cell]
            result = subprocess.run(run, check=True, stdout=subprocess.PIPE)
            peaks[library] = json.loads(result.stdout)["peak_mib"]

    benchmark.pedantic(measure, rounds=1)
    base = peaks["nothing"]
    rows.add_memory(benchmark, case.name, peaks["fastrnn"] - base, peaks["mxnet"] - base)
