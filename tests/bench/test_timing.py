"""Timing and CUDA graphs, with a clock and a PyTorch that only move when they are told to."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import sources  # noqa: F401
from clocks import Machine

from bench import graphs, timing


def test_calls_take_turns():
    machine = Machine()
    calls = {"a": machine.call("a", 0.5), "b": machine.call("b", 1.0)}
    times = timing.time_calls(calls, 2, 6.0, machine.clock).times
    assert times["a"] == (0.5, 0.5, 0.5, 4)
    assert times["b"].median == 1.0
    names = [name for name, _ in machine.calls]
    assert names == ["a", "b"] * 4
    assert [number for name, number in machine.calls if name == "a"] == [0, 1, 0, 1]


def test_a_short_call_is_warmed_up():
    machine = Machine()
    seconds = iter([2**-10, *[2**-7, 2**-10] * 500])
    timed = timing.time_calls({"a": machine.call("a", seconds)}, 1, 2**-6, machine.clock)
    times = timed.times
    assert times["a"] == (2**-10, 2**-10, 2**-10, 7)


def test_median_and_quartiles():
    assert timing.summarize([5.0, 1.0, 2.0, 3.0, 4.0]) == (3.0, 2.0, 4.0, 5)
    assert timing.summarize([2.0]) == (2.0, 2.0, 2.0, 1)
    with pytest.raises(ValueError, match="seconds is empty"):
        timing.summarize([])


def test_events_span_many_short_calls_and_rotate_inputs():
    machine = Machine()
    calls = {"a": machine.call("a", 1e-5), "b": machine.call("b", 0.5)}
    times = timing.time_on_gpu(calls, 3, 2.0, machine.event, machine.clock).times
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

    times = timing.time_on_gpu({"a": slow}, 1, 2.0, quick_event, machine.clock).times
    assert times["a"].rounds < 10


def breaks_after(count):
    left = iter(range(count))

    def call(number):
        if next(left, None) is None:
            raise OSError("broke")

    return call


@pytest.mark.parametrize("count", [0, 1, 2])
def test_who_fails_takes_no_further_turn(count):
    machine = Machine()
    calls = {"bad": breaks_after(count), "good": machine.call("good", 0.5)}
    for timed in (
        timing.time_calls(calls, 1, 4.0, machine.clock),
        timing.time_on_gpu(
            {**calls, "bad": breaks_after(count)}, 1, 4.0, machine.event, machine.clock
        ),
    ):
        assert list(timed.times) == ["good"]
        assert timed.times["good"].median == 0.5
        assert timed.times["good"].rounds >= timing.LEAST_ROUNDS
        assert str(timed.failures["bad"]) == "broke"


def test_input_sets_outgrow_the_cache():
    assert timing.input_sets(10, 100, 1 << 30) == 20
    assert timing.input_sets(1000, 100, 1 << 30) == 2
    assert timing.input_sets(10, 100, 50) == 5
    assert timing.input_sets(10, 100, 1) == 2
    assert timing.input_sets(1, 1 << 30, 1 << 30) == timing.MOST_SETS


class FakeCuda:
    """As much of PyTorch as capturing takes."""

    def __init__(self, fails_at_the_end=False):
        self.cuda, self.streams, self.pools, self.replays = self, ["usual"], [], []
        self.fails_at_the_end, self.waits, self.left = fails_at_the_end, 0, []
        self._C = SimpleNamespace(_cuda_endAllocateToPool=self.end)

    def end(self, device, pool):
        self.left.append((device, pool))

    def graph_pool_handle(self):
        return "pool"

    def current_device(self):
        return 3

    def current_stream(self):
        return self.streams[-1]

    def synchronize(self):
        self.waits += 1

    def CUDAGraph(self):  # noqa: N802
        graph = SimpleNamespace()
        graph.replay = lambda: self.replays.append(graph)
        graph.reset = lambda: setattr(graph, "gone", True)
        return graph

    @contextmanager
    def stream(self, stream):
        before = list(self.streams)
        self.streams.append(stream)
        try:
            yield
        finally:
            self.streams = before

    @contextmanager
    def graph(self, graph, pool):
        self.pools.append(pool)
        self.streams.append("capturing")
        try:
            yield
        except ValueError:
            if self.fails_at_the_end:  # and does not restore the stream
                raise RuntimeError("the capture was invalidated") from None
            raise
        self.streams.pop()


def test_a_call_is_captured_for_the_first_input_sets():
    fake, seen = FakeCuda(), []
    graph = graphs.capture(fake, lambda number: seen.append((number, fake.streams[-1])), 2)
    assert seen == [(1, "capturing"), (0, "capturing")]
    assert fake.pools == ["pool", "pool"]
    assert fake.streams == ["usual"]
    graph.call(1)
    graph.call(0)
    second, first = fake.replays
    assert first is not second
    graph.call(0)
    assert fake.replays[-1] is first
    graph.delete()
    assert first.gone
    assert second.gone
    assert fake.left == []


@pytest.mark.parametrize("fails_at_the_end", [True, False])
def test_a_failed_capture_is_left(fails_at_the_end):
    fake = FakeCuda(fails_at_the_end)

    def refuses(number):
        if number == 0:
            raise ValueError("not permitted\nmore")

    graph = graphs.capture(fake, refuses, 2)
    assert graph.call is None
    assert graph.reason == "ValueError: not permitted"
    assert fake.streams == ["usual"]
    assert fake.left == [(3, "pool")]
    assert fake.waits == 1


def test_a_pytorch_that_has_left_by_itself():
    fake = FakeCuda()

    def refuses(number):
        raise ValueError("no")

    def has_left(device, pool):
        raise RuntimeError("endAllocatePool: not currently recording to mempool_id")

    fake._C._cuda_endAllocateToPool = has_left
    assert graphs.capture(fake, refuses, 1).reason == "ValueError: no"
    del fake._C._cuda_endAllocateToPool
    assert graphs.capture(fake, refuses, 1).reason == "ValueError: no"

    def breaks(device, pool):
        raise RuntimeError("something else")

    fake._C._cuda_endAllocateToPool = breaks
    with pytest.raises(RuntimeError, match="something else"):
        graphs.capture(fake, refuses, 1)


def test_graphs_are_few_and_fit():
    assert graphs.count_that_fits(8, 1e9, 80e9) == 2
    assert graphs.count_that_fits(1, 1e9, 80e9) == 1
    assert graphs.count_that_fits(8, 30e9, 80e9) == 1
    assert graphs.count_that_fits(8, 80e9, 10e9) == 1
    assert graphs.count_that_fits(8, 0.0, 10e9) == 2
