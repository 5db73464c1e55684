"""Each way to wait that bench/limits/synchronization.cu compares hands on what was written."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BUILDS = Path(os.environ["FASTRNN_EMULATED_BUILDS"])
VARIANTS, SECTOR = 5, 8


def exchange(variant, build="plain", blocks=5, words=6, steps=4):
    """Return what each block has read, in sum, and what that should be."""
    library = ctypes.CDLL(str(BUILDS / build / "libsynchronization.so"))
    pointer = ctypes.c_void_p
    library.BenchSynchronization.argtypes = [
        *(ctypes.c_int, pointer, pointer, pointer, ctypes.c_int, ctypes.c_int),
        *(ctypes.c_uint, pointer),
    ]
    flags, parts = np.zeros(blocks * SECTOR, np.uint32), np.zeros(2 * blocks * words, np.uint64)
    sums = np.zeros(blocks, np.uint32)
    arrays = (flags.ctypes.data, parts.ctypes.data, sums.ctypes.data)
    status = library.BenchSynchronization(variant, *arrays, blocks, words, steps, None)
    assert status == 0, f"cudaError {status}"
    step, block, word = np.ix_(range(1, steps + 1), range(blocks), range(words))
    return sums, (step + 3 * block + 5 * word).sum()


@pytest.mark.parametrize("schedule", ["fifo", "lifo", "random:1", "random:2", "random:3"])
@pytest.mark.parametrize("variant", range(VARIANTS))
def test_every_block_reads_what_all_have_written(variant, schedule, monkeypatch):
    monkeypatch.setenv("FASTRNN_EMULATOR_SCHEDULE", schedule)
    sums, expected = exchange(variant)
    assert (sums == expected).all(), sums


@pytest.mark.parametrize("variant", range(VARIANTS))
def test_no_variant_has_a_race(variant):
    preload = subprocess.check_output(["g++", "-print-file-name=libtsan.so"], text=True).strip()
    program = f"import test_synchronization as t; print(t.exchange({variant}, 'thread'))"
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "LD_PRELOAD": preload, "FASTRNN_EMULATOR_SCHEDULE": "random:3"},
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    assert "data race" not in result.stdout


def test_a_variant_that_is_none():
    with pytest.raises(AssertionError, match="cudaError -1"):
        exchange(VARIANTS)
