"""The emulator runs correct kernels, and finds every mistake that it promises to find."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

BUILDS = Path(os.environ["FASTRNN_EMULATED_BUILDS"])
# Starting a program takes ThreadSanitizer long, and it needs no particular order to see a race.
CHECKED = [("plain", s) for s in ("fifo", "lifo", "random:1", "random:2")]
CHECKED += [("address", "lifo"), ("thread", "random:3")]
FINDS = {"address": ("ERROR: AddressSanitizer", "runtime error:"), "thread": ("data race",)}
SANITIZER_OF = {"asan": "address", "tsan": "thread"}  # which alone sees the mistake


def run(build: str, schedule: str, *arguments: str) -> subprocess.CompletedProcess:
    environment = {
        **os.environ,
        "FASTRNN_EMULATOR_SCHEDULE": schedule,
        # Threads of a launch that failed are stuck, and what they hold with them.
        "ASAN_OPTIONS": "detect_leaks=0",
    }
    return subprocess.run(
        [str(BUILDS / build / "selftest"), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )


CASES = [tuple(line.split()) for line in run("plain", "fifo").stdout.splitlines()]


@pytest.mark.parametrize(
    ("name", "outcome", "build", "schedule"),
    [
        (*case, build, schedule)
        for case in CASES
        for build, schedule in CHECKED
        if SANITIZER_OF.get(case[1], build) == build
    ],
)
def test_case(name, outcome, build, schedule):
    result = run(build, schedule, name)
    if outcome in SANITIZER_OF:
        assert result.returncode != 0
        assert any(text in result.stdout for text in FINDS[build]), result.stdout
    else:
        assert result.returncode == 0, result.stdout


def test_the_list_has_cases_of_every_outcome():
    assert {outcome for _, outcome in CASES} == {"pass", "refuse", "asan", "tsan"}


def test_a_wrong_schedule_is_named():
    result = run("plain", "random", "sum")
    assert result.returncode != 0
    assert "FASTRNN_EMULATOR_SCHEDULE is 'random', expected fifo" in result.stdout
