"""What mutants.py must not overlook."""

from __future__ import annotations

import re

import mutants
import pytest
from mutants import Baseline, Site

TEXT = """
  __syncthreads();  // not __syncwarp();
  while (LoadAcquire(p) < 1) {
  }
  // No mutant: nothing follows
  this_grid().sync();
"""
NAMES = {"__syncthreads", "__syncwarp", "LoadAcquire", "sync"}


def test_calls_are_found_with_the_reason_why_they_stay():
    assert mutants.find_sites("a.cuh", TEXT, NAMES) == [
        ("a.cuh:2", "__syncthreads", None),
        ("a.cuh:3", "LoadAcquire", None),
        ("a.cuh:6", "sync", "nothing follows"),
    ]


@pytest.mark.parametrize(
    ("exception", "reaching", "noticed", "good"),
    [
        (None, 2, ["a test"], True),
        (None, 2, [], False),
        (None, 0, [], False),
        ("a reason", 2, [], True),
        ("a reason", 2, ["a test"], False),
        ("", 2, [], False),
    ],
)
def test_verdicts(exception, reaching, noticed, good):
    site = Site("a.cuh:2", "__syncthreads", exception)
    assert mutants.verdict(site, reaching, noticed)[0] == good


@pytest.mark.parametrize("file", ["threads/emulator.cc", "device/device_emulated.h"])
def test_all_that_orders_memory_can_be_left_out(file):
    # But for what tells ThreadSanitizer of an allocation.
    functions = (mutants.builds.ROOT / mutants.builds.HERE / file).read_text().split("\n}\n")
    ordering = [f for f in functions if re.search("Tsan(Acquire|Release)|_(ACQUIRE|RELEASE)", f)]
    assert len(ordering) > 1
    assert all("IsLeftOut(" in f or "StaticShared(" in f for f in ordering)


def test_a_reached_call_that_is_not_in_the_sources_is_an_error():
    names = sorted(mutants.PRIMITIVES)
    reached = {f"csrc/cuda/no_such.cuh:{line}": name for line, name in enumerate(names, 7)}
    with pytest.raises(SystemExit, match="no_such.cuh:7"):
        mutants.all_sites([Baseline(mutants.Test("a", (), "plain", "fifo"), 1.0, reached)])


def test_a_primitive_that_no_test_reaches_is_an_error():
    reached = {"csrc/cuda/persistent/exchange.cuh:7": "LoadAcquire"}
    with pytest.raises(SystemExit, match="no test reaches ClusterBarrier, ExpectBytes"):
        mutants.all_sites([Baseline(mutants.Test("a", (), "plain", "fifo"), 1.0, reached)])


def test_a_test_that_fails_by_itself_is_an_error(monkeypatch):
    monkeypatch.setattr(mutants.builds, "environment", lambda build, schedule: {})
    with pytest.raises(SystemExit, match="broken .* fails with nothing left out"):
        mutants.baselines([mutants.Test("broken", ("false",), "plain", "lifo")], 1)
