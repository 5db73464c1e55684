"""The comparison of ways to wait, with stand-ins of nvcc and of a GPU."""

from __future__ import annotations

import ctypes
import os
from types import SimpleNamespace

import numpy as np
import pytest

from bench.limits import synchronization
from fastrnn_build import detect

NVCC = detect.find_nvcc(os.environ)


@pytest.mark.skipif(isinstance(NVCC, detect.Missing), reason="no nvcc on this machine")
def test_it_compiles(tmp_path):
    library = ctypes.CDLL(str(synchronization.build(tmp_path, "80")))
    assert library.BenchSynchronization is not None


def test_the_sum_is_that_of_what_the_blocks_hand_on():
    step, block, word = np.ix_(range(1, 8), range(5), range(6))
    wanted = (step + 3 * block + 5 * word).sum()
    assert synchronization.sum_of(blocks=5, words=6, steps=7) == wanted
    assert synchronization.sum_of(132, 240, 2000) < 2**32


def test_parts_have_whole_pairs_of_words():
    assert synchronization.words_of(0, 132) == 2
    assert synchronization.words_of(24 << 10, 64) == 96
    assert synchronization.words_of(125 << 10, 132) % 2 == 0


class Gpu:
    """A PyTorch whose exchanges take as many milliseconds as the variant's number says."""

    int32 = None

    def __init__(self, status=0, wrong=0):
        self.cuda, self.status, self.wrong, self.variant = self, status, wrong, None

    def zeros(self, count, **options):
        return SimpleNamespace(data_ptr=lambda: 0, tolist=lambda: [self.sum + self.wrong] * count)

    def Event(self, enable_timing):  # noqa: N802
        elapsed = lambda end: 2.0 * (5 - self.variant)  # noqa: E731
        return SimpleNamespace(record=int, synchronize=int, elapsed_time=elapsed)

    def current_stream(self):
        return SimpleNamespace(cuda_stream=0)

    def call(self, variant, flags, parts, sums, blocks, words, steps, stream):
        self.variant = variant
        # As PyTorch shows the numbers above 2**31.
        self.sum = synchronization.sum_of(blocks, words, steps) - 2**32
        return self.status


@pytest.fixture
def exchanges(monkeypatch):
    monkeypatch.setattr(synchronization, "WARM_UP_SECONDS", 0.0)

    def make(**options):
        made = synchronization.Exchanges.__new__(synchronization.Exchanges)
        made._torch = Gpu(**options)
        made._function, made.multiprocessors = made._torch.call, 40
        return made

    return make


def test_a_process_that_hangs_is_ended(monkeypatch, tmp_path):
    program = tmp_path / "program.py"
    program.write_text("import signal; signal.pause()")
    monkeypatch.setattr(synchronization, "__file__", str(program))
    monkeypatch.setattr(synchronization, "PROCESS_SECONDS", 0.5)
    with pytest.raises(synchronization.MissingExchangeError, match="not done after 0.5 seconds"):
        synchronization.fastest_in_process()


def test_every_variant_is_timed_for_every_number_of_blocks(exchanges):
    rows = exchanges().rows()
    assert [row.blocks for row in rows] == [4, 16, 32, 40] * 3
    assert rows[0].seconds == pytest.approx([5e-6, 4e-6, 3e-6, 2e-6, 1e-6])
    assert exchanges().fastest() == pytest.approx(dict.fromkeys((4, 16, 32, 40), 1e-6))
    line = synchronization.table(rows)[2]
    assert line == "| 4 | 0 KiB | 5.00 | 4.00 | 3.00 | 2.00 | **1.00** |"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"status": 720}, "a flag a block: CUDA's error 720"),
        ({"wrong": 1}, "a flag a block: blocks have read something else"),
    ],
)
def test_what_goes_wrong_is_said(exchanges, options, message):
    with pytest.raises(synchronization.MissingExchangeError, match=message):
        exchanges(**options).rows()
