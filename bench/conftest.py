"""Collects the ratios and prints them as one table when all benchmarks are done."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


class Rows:
    """The lines of the closing table."""

    def __init__(self):
        self.times = []
        self.memory = []

    def add(self, benchmark, name, fastrnn, mxnet):
        """Median seconds of a call of both layers."""
        benchmark.extra_info.update(case=name, mxnet_seconds=mxnet, ratio=mxnet / fastrnn)
        self.times.append((name, fastrnn, mxnet))

    def add_memory(self, benchmark, name, fastrnn, mxnet):
        """Peak MiB of both."""
        benchmark.extra_info.update(case=name, fastrnn_mib=fastrnn, mxnet_mib=mxnet)
        self.memory.append((name, fastrnn, mxnet))


_ROWS = pytest.StashKey[Rows]()


def pytest_configure(config):
    config.stash[_ROWS] = Rows()


@pytest.fixture(scope="session")
def rows(pytestconfig):
    """Where a benchmark puts its line of the closing table."""
    return pytestconfig.stash[_ROWS]


def pytest_terminal_summary(terminalreporter, config):
    rows = config.stash[_ROWS]
    write = terminalreporter.write_line
    if rows.times:
        threads = os.environ.get("OMP_NUM_THREADS", "each library's own choice")
        write("")
        processors = len(os.sched_getaffinity(0))
        write(f"median time of a call; {processors} processors, threads: {threads}")
        write(f"{'':50} {'fastrnn':>11} {'MXNet':>11} {'ratio':>7}")
        for name, ours, theirs in rows.times:
            write(f"{name:50} {ours * 1e3:8.2f} ms {theirs * 1e3:8.2f} ms {theirs / ours:6.2f}x")
    if rows.memory:
        write("")
        write(f"{'peak memory of training':50} {'fastrnn':>11} {'MXNet':>11}")
        for name, ours, theirs in rows.memory:
            write(f"{name:50} {ours:7.0f} MiB {theirs:7.0f} MiB")
