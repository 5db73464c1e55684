"""Cases, limits and timing: plain data and arithmetic."""

from __future__ import annotations

import ctypes
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import sources  # noqa: F401

from bench import cases, peaks, timing
from bench.cases import Case
from bench.limits import Peaks, dependent_steps, flops, least_bytes, limit

PEAKS = Peaks(1e12, 1e11, 1e-6)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_no_name_is_twice(device, full):
    names = [case.name for case in cases.grid(device, full)]
    assert len(set(names)) == len(names)


def test_the_full_grid_has_every_size_and_option():
    grid = cases.grid("cuda", full=True)
    assert {c.hidden for c in grid} >= set(cases.HIDDEN)
    assert {c.batch for c in grid} >= set(cases.BATCHES)
    assert {c.steps for c in grid} >= set(cases.STEPS)
    for train in (True, False):
        kinds = {(c.cell, c.dtype, c.tf32) for c in grid if c.train == train and c.layers == 2}
        assert {cell for cell, _, _ in kinds} == set(cases.CELLS)
        assert {("lstm", "float32", True), ("lstm", "float16", False)} < kinds
        assert {("lstm", "float32", False), ("lstm", "bfloat16", False)} < kinds
    assert {c.layers for c in grid} == {1, 2}
    assert {c.bidirectional for c in grid} == {c.ragged for c in grid} == {True, False}
    assert {c.task for c in grid} == set(cases.TASKS)
    assert set(cases.grid("cuda")) < set(grid)
    assert set(cases.grid("cpu")) < set(cases.grid("cpu", full=True))


def test_lengths_fall_from_all_steps():
    lengths = Case("gru", batch=5, steps=8, ragged=True).lengths()
    assert lengths.dtype == np.int32
    assert lengths.tolist() == [8, 6, 5, 4, 2]
    assert Case("gru", batch=2, steps=8).lengths().tolist() == [8, 8]


@pytest.mark.parametrize(
    "options, said",
    [
        ({"cell": "elman"}, "cell is 'elman', expected one of lstm"),
        ({"cell": "gru", "task": "nap"}, "task is 'nap', expected one of layer"),
        ({"cell": "gru", "tf32": True, "dtype": "float16"}, "tf32 is True for float16"),
    ],
)
def test_a_case_that_is_none(options, said):
    with pytest.raises(ValueError, match=said):
        Case(**options)


def test_limits_are_counted_by_hand():
    case = Case("lstm", layers=1, inputs=2, hidden=3, batch=5, steps=7, train=False)
    weights = 4 * 3 * (2 + 3)
    assert flops(case) == 2 * weights * 5 * 7
    assert least_bytes(case) == 4 * (weights + 5 * 7 * 2 + 5 * 7 * 3)
    assert dependent_steps(case) == 7
    two = replace(case, layers=2, bidirectional=True, train=True, dtype="float16")
    weights = 2 * 12 * (2 + 3) + 2 * 12 * (6 + 3)
    assert flops(two) == 3 * 2 * weights * 5 * 7
    assert least_bytes(two) == 2 * (3 * weights + 35 * 2 * 3 + 35 * 6 * 3)
    assert dependent_steps(two) == 2 * (7 + 1)
    ragged = replace(case, ragged=True)
    assert flops(ragged) == 2 * 60 * ragged.lengths().sum() < flops(case)


def test_the_largest_bound_is_the_limit():
    case = Case("lstm")
    assert limit(case, PEAKS) == (flops(case) / 1e12, "math")
    assert limit(case, PEAKS._replace(bandwidth=1.0)) == (least_bytes(case), "memory")
    assert limit(case, PEAKS._replace(exchange=1.0)) == (202.0, "exchange")
    assert limit(case, PEAKS._replace(exchange=None)).bound == "math"
    with pytest.raises(ValueError, match="bandwidth is 0, expected more than 0"):
        limit(case, PEAKS._replace(bandwidth=0))


class Machine:
    """A clock, and a GPU with a queue, that only move when work is done."""

    def __init__(self):
        self.now = 0.0
        self.calls = []

    def clock(self):
        return self.now

    def call(self, name, seconds):
        def run(number):
            self.calls.append((name, number))
            self.now += next(seconds) if hasattr(seconds, "__next__") else seconds

        return run

    def event(self):
        event = SimpleNamespace(at=None)
        event.record = lambda: setattr(event, "at", self.now)
        event.synchronize = lambda: None
        event.elapsed_time = lambda end: (end.at - event.at) * 1e3
        return event


def test_calls_take_turns():
    machine = Machine()
    calls = {"a": machine.call("a", 0.5), "b": machine.call("b", 1.0)}
    times = timing.time_calls(calls, 2, 6.0, machine.clock)
    assert times["a"] == (0.5, 0.5, 0.5, 4)
    assert times["b"].median == 1.0
    names = [name for name, _ in machine.calls]
    assert names == ["a", "b"] * 4
    assert [number for name, number in machine.calls if name == "a"] == [0, 1, 0, 1]


def test_a_short_call_is_warmed_up():
    machine = Machine()
    seconds = iter([2**-10, *[2**-7, 2**-10] * 500])
    times = timing.time_calls({"a": machine.call("a", seconds)}, 1, 2**-6, machine.clock)
    assert times["a"] == (2**-10, 2**-10, 2**-10, 7)


def test_median_and_quartiles():
    assert timing.summarize([5.0, 1.0, 2.0, 3.0, 4.0]) == (3.0, 2.0, 4.0, 5)
    assert timing.summarize([2.0]) == (2.0, 2.0, 2.0, 1)
    with pytest.raises(ValueError, match="seconds is empty"):
        timing.summarize([])


def test_events_span_many_short_calls_and_rotate_inputs():
    machine = Machine()
    calls = {"a": machine.call("a", 1e-5), "b": machine.call("b", 0.5)}
    times = timing.time_on_gpu(calls, 3, 2.0, machine.event, machine.clock)
    assert times["a"].median == pytest.approx(1e-5)
    assert times["b"].median == pytest.approx(0.5)
    numbers = [number for name, number in machine.calls if name == "a"]
    assert numbers[1:5] == [0, 1, 2, 0]
    assert len(numbers) > 100 * times["a"].rounds - 1
    assert times["a"].rounds == times["b"].rounds == timing.LEAST_ROUNDS


def test_a_slow_host_does_not_spend_more_than_its_time():
    machine = Machine()
    event = machine.event

    def slow(number):
        machine.now += 1.0

    def quick_event():
        made = event()
        made.elapsed_time = lambda end: 1.0
        return made

    times = timing.time_on_gpu({"a": slow}, 1, 2.0, quick_event, machine.clock)
    assert times["a"].rounds < 10


def test_input_sets_outgrow_the_cache():
    assert timing.input_sets(10, 100) == 20
    assert timing.input_sets(1000, 100) == 1
    assert timing.input_sets(1, 1 << 30) == 32


class FakeCuda:
    """As much of ``torch.cuda`` as capturing takes."""

    def __init__(self, error=None):
        self.error, self.waits, self.replays = error, 0, []
        self.cuda = self

    def CUDAGraph(self):  # noqa: N802
        return SimpleNamespace(replay=lambda: self.replays.append(1))

    def graph(self, graph):
        return self

    def __enter__(self):
        if self.error:
            raise self.error

    def __exit__(self, *_):
        return False

    def synchronize(self):
        self.waits += 1


def test_a_call_is_captured_for_each_input_set():
    fake, seen = FakeCuda(), []
    graph = timing.capture(fake, seen.append, 3)
    assert seen == [0, 1, 2]
    graph.call(2)
    assert fake.replays == [1]
    refused = timing.capture(FakeCuda(RuntimeError("not permitted\nmore")), seen.append, 1)
    assert refused == (None, "not permitted")


def test_the_best_of_calls_for_a_second():
    machine = Machine()
    call = machine.call("a", iter([0.5, 0.25, 0.125, *[0.375] * 10]))
    assert peaks.best(lambda: call(0), machine.clock) == 0.125
    assert len(machine.calls) == peaks.ROUNDS


def test_peaks_of_the_cpu(monkeypatch):
    monkeypatch.setattr(peaks, "CPU_SIZE", 64)
    monkeypatch.setattr(peaks, "COPY_BYTES", 1 << 20)
    monkeypatch.setattr(peaks, "LEAST_SECONDS", 0.0)
    found = peaks.on_cpu()["float32"]
    assert found.flops > 1e6
    assert found.bandwidth > 1e6
    assert found.exchange is None
    assert peaks.as_json({"float32": found}) == {"float32": [found.flops, found.bandwidth, None]}


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on this machine")
def test_the_exchange_compiles(tmp_path):
    library = ctypes.CDLL(str(peaks.build_exchange(tmp_path, "80")))
    assert library.BenchExchange is not None


def test_without_nvcc_the_exchange_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "/no/such/folder")
    with pytest.raises(FileNotFoundError, match="nvcc was not found"):
        peaks.build_exchange(tmp_path, "80")
