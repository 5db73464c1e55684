"""Builds the CUDA part for the emulator, plain and with the sanitizers, and runs its tests.

    python tests/emulator/run.py [--jobs N]

What each run is for:

- The order of threads matters where blocks wait for each other or two streams are captured. Small
  persistent kernels have every barrier and every wait (mutants.py shows that they notice when one
  is missing), and run in each order: lifo, in which a block is as far ahead as it can be, fifo and
  random. For all the other instances and sizes, whose numbers are checked, one order is enough.
- ThreadSanitizer sees a missing barrier in any order, and AddressSanitizer an overrun: small layers
  are enough for them, too.
- A GPU of compute capability 7.5 multiplies by another instruction, which each instance, odd sizes,
  long rows of weights and streamed ones show.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import List, Mapping, NamedTuple, Sequence, Tuple

import builds

EMULATOR = "tests/emulator/"
TESTS = "tests/kernels/"
KERNELS = tuple(
    f"{TESTS}{part}.py"
    for part in (
        "test_kernels",
        "test_kernels_cuda",
        "test_kernels_layers",
        "options/test_kernels_clip",
        "options/test_kernels_lengths",
        "options/test_kernels_projection",
    )
)
NOISE = TESTS + "options/test_kernels_noise.py"
LAYER_NORM = TESTS + "options/test_kernels_layer_norm.py"  # stepwise anyway
SMALL = (EMULATOR + "small_layers.py", EMULATOR + "small_persistent.py")
PERSISTENT = TESTS + "test_persistent.py"
STEPWISE = {"FASTRNN_ALGORITHM": "stepwise"}  # else small layers are persistent
# MXNet's operator works on the calling thread here. There is no verdict of `fastrnn check`.
OPERATOR = {
    "FASTRNN_BACKEND": "native",
    "FASTRNN_EMULATED_OPERATORS": "1",
    "MXNET_ENGINE_TYPE": "NaiveEngine",
    "FASTRNN_TF32": "0",
}


class Run(NamedTuple):
    """Test files (and pytest's options) on a build, in a schedule."""

    build: str
    schedule: str
    arguments: Tuple[str, ...]
    variables: Mapping[str, str] = {}

    def __str__(self) -> str:
        return f"{self.build}, {self.schedule}: {' '.join(self.arguments)}"


# The longest first.
RUNS = [
    Run("plain", "random:1", (PERSISTENT,)),
    Run("thread", "random:3", SMALL, STEPWISE),
    Run("address", "lifo", SMALL, STEPWISE),
    Run(
        "plain",
        "random:5",
        (*KERNELS, TESTS + "test_kernels_out.py", TESTS + "test_device_arrays.py"),
    ),
    Run("plain", "random:4", (*KERNELS, NOISE), STEPWISE),
    Run("plain", "random:6", (TESTS + "plans/test_plan_cache.py", LAYER_NORM)),
    Run("plain", "fifo", (EMULATOR + "device_faults.py", EMULATOR + "occupancy.py")),
    Run("turing", "random:2", (PERSISTENT, "-k", "instance or sizes or registers or stream")),
    Run("plain", "fifo", (*SMALL[1:], EMULATOR + "calls.py")),
    Run("plain", "lifo", (*SMALL[1:], EMULATOR + "calls.py")),
    Run("plain", "random:6", (*SMALL[1:], EMULATOR + "calls.py")),
]
# Of the layers' tests, those on MXNet's own operators show nothing here.
NATIVE = "not (gluon- or gluon])"
OPTIONS = "float16 or lengths or projection or clip"
OPERATOR_RUNS = [
    Run("plain", "random:7", ("tests/layers/operators/test_operator.py",), OPERATOR),
    Run(
        "plain",
        "random:8",
        ("tests/layers/test_layers_numbers.py", "-k", NATIVE),
        OPERATOR,
    ),
    Run(
        "plain",
        "random:9",
        ("tests/layers/test_layers_options.py", "-k", f"({OPTIONS}) and {NATIVE}"),
        OPERATOR,
    ),
    Run(
        "plain",
        "random:12",
        (
            "tests/layers/regularised/test_layers_noise.py",
            "-k",
            f"(results or options or float16) and {NATIVE}",
        ),
        OPERATOR,
    ),
    Run(
        "plain",
        "random:13",
        ("tests/layers/regularised/test_layer_norm.py", "-k", f"(results or float16) and {NATIVE}"),
        OPERATOR,
    ),
    Run("plain", "random:10", ("tests/gpu/test_mxnet_operator.py",), OPERATOR),
    Run("plain", "random:11", (EMULATOR + "checked.py",), {**OPERATOR, "FASTRNN_TF32": "1"}),
]


def tasks() -> List[Tuple[str, Sequence[str], Mapping[str, str]]]:
    """Return what there is to run: a name, a command, and its environment."""
    python = (sys.executable, "-m", "pytest", "-q")
    found = []
    for run in [*RUNS, *(OPERATOR_RUNS if builds.has_mxnet() else [])]:
        variables = {**builds.environment(run.build, run.schedule), **run.variables}
        found.append((str(run), builds.pytest("-q", *run.arguments), variables))
    own = {**os.environ, "FASTRNN_EMULATED_BUILDS": str(builds.BUILDS)}
    found.append(("the emulator's own", (*python, EMULATOR), own))
    if builds.has_mxnet():
        # Shapes that are not all known, on the allocator that notices an overrun in MXNet, too.
        shapes = {**os.environ, "MXNET_ENGINE_TYPE": "ThreadedEnginePerDevice"}
        # It looks for the C++ library's throw when it starts, before Python loads that library.
        shapes.update(LD_PRELOAD=builds.find("libasan.so", "libstdc++.so.6"), **builds.NO_LEAKS)
        found.append(("shapes in MXNet", (*python, "tests/layers/test_layers_shapes.py"), shapes))
    return found


def passes(name: str, command: Sequence[str], variables: Mapping[str, str]) -> bool:
    """Run a command, print its last line, or all of it where it fails, and return how it ended."""
    begin = time.monotonic()
    result = subprocess.run(
        command,
        cwd=builds.ROOT,
        env=dict(variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    lines = result.stdout.decode(errors="replace").splitlines()
    shown = "\n".join(lines if result.returncode != 0 else lines[-1:])
    print(f"{name} ({time.monotonic() - begin:.0f} s)\n  {shown}", flush=True)
    return result.returncode == 0


def main() -> int:
    """Build, and run everything."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    jobs = parser.parse_args().jobs
    builds.build(jobs)
    with ThreadPoolExecutor(jobs) as pool:
        ended = list(pool.map(lambda task: passes(*task), tasks()))
    return 0 if all(ended) else 1


if __name__ == "__main__":
    sys.exit(main())
