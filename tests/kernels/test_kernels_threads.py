"""Layers on the CPU that several threads share, against the oracle."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import reference as ref

pytest.importorskip("fastrnn._C", reason="installed without the native library")

from kernel_cases import KernelCase, assert_agrees, devices

from fastrnn import kernels, plans

pytestmark = pytest.mark.skipif("cpu" not in devices(), reason="a build without CPU kernels")

THREADS = 3
# T, N and H, and what a plan says of them with three threads.
OWN_ROWS = "threads with rows of their own"
SHARED = "threads that share each step"
SHAPES = {
    "small, ragged rows": (60, 13, 64, OWN_ROWS),
    "small, one row fewer": (60, 14, 64, OWN_ROWS),
    "ragged rows": (9, 50, 200, OWN_ROWS),
    "time in chunks": (80, 40, 64, OWN_ROWS),
    "one row": (5, 1, 1100, SHARED),
    "our product in parts": (30, 4, 360, SHARED),
    "a library's product in parts": (5, 9, 360, SHARED),
    "few steps": (2, 9, 360, SHARED),
}
needs_threads = pytest.mark.skipif(
    os.environ.get("OMP_NUM_THREADS") != str(THREADS), reason=f"needs {THREADS} threads"
)


@pytest.mark.skipif(os.environ.get("OMP_NUM_THREADS") == str(THREADS), reason="runs itself")
def test_with_three_threads():
    """Run the rest of this file where layers have that many, whatever the machine has."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
        env={**os.environ, "OMP_NUM_THREADS": str(THREADS)},
        cwd=Path(__file__).parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def _cases(steps, rows, hidden, **options):
    for mode in ref.MODES:
        yield KernelCase(mode, steps, rows, 7, hidden, **options)


@needs_threads
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_agrees(shape):
    *sizes, how = shape
    steps, rows, hidden = sizes
    assert how in plans.reason("lstm", steps, rows, 7, hidden, reserve=True)
    for dtype in ("float32", "float64"):
        for case in _cases(*sizes, directions=2, dtype=dtype):
            assert_agrees(case)
    for case in _cases(*sizes, lengths=np.resize([1, steps, 0, steps - 1], rows)):
        assert_agrees(case)


@needs_threads
@pytest.mark.parametrize("mode", ["lstm", "gru"])
@pytest.mark.parametrize("option", ["layer_norm", "noise"])
def test_16_bits_with_options(option, mode):
    # With drop_states, a GRU's h grows in each step, soon beyond float16.
    noise = kernels.Noise(0.2, 0.3, 0.4) if mode == "lstm" else kernels.Noise(0.2)
    options = {"noise": noise, "noise_seed": 3} if option == "noise" else {"layer_norm": True}
    *sizes, _ = SHAPES["small, ragged rows"]
    steps, rows, hidden = sizes
    assert_agrees(KernelCase(mode, steps, rows, 7, hidden, dtype="float16", **options))


@needs_threads
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_same_bits_every_time_whatever_else_runs(shape):
    def bits(case):
        result = case.forward(reserve=True)
        gradients = case.backward(result.reserve)
        arrays = [result.output, result.h_n, gradients.x, gradients.h_0, *gradients.weights]
        return b"".join(np.asarray(array).tobytes() for array in arrays)

    cases = list(_cases(*shape[:3]))
    alone = [bits(case) for case in cases]
    with ThreadPoolExecutor(4) as callers:
        assert list(callers.map(bits, cases * 4)) == alone * 4


@needs_threads
def test_signals_reach_the_callers_thread():
    # Python's handlers run on the main thread, but the system may pick any that lets a signal in.
    assert_agrees(next(_cases(60, 13, 64)))
    tasks = Path("/proc/self/task")
    helpers = [task for task in tasks.iterdir() if task.name != str(os.getpid())]
    blocked = [
        int(line.split()[1], 16)
        for task in helpers
        for line in (task / "status").read_text().splitlines()
        if line.startswith("SigBlk")
    ]
    assert sum(mask >> 1 & 1 for mask in blocked) >= THREADS - 1  # SIGINT
