"""Timing and CUDA graphs, with a clock and a PyTorch that only move when they are told to."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import sources  # noqa: F401
from clocks import COLD, EVICTION, RECORD, Machine

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


def test_calls_on_a_gpu_take_turns_and_rotate_inputs_that_are_cold():
    machine = Machine()
    calls = {"a": machine.launch("a", 0.0, 0.25), "b": machine.launch("b", 0.0, 0.5)}
    times = timing.time_on_gpu(calls, 3, 4.0, machine.gpu, machine.clock).times
    assert times["a"] == (0.25 + COLD + RECORD,) * 3 + (5,)
    assert times["b"].median == 0.5 + COLD + RECORD
    assert [name for name, *_ in machine.calls] == ["a", "b"] * 6
    assert [number for name, number, _ in machine.calls if name == "a"] == [0, 1, 2] * 2
    assert all(cold for *_, cold in machine.calls)


def test_warm_calls_on_a_gpu_come_behind_the_same_call():
    machine = Machine()
    machine.cold = True  # until the first
    calls = {"a": machine.launch("a", 2.0**-8, 0.25), "b": machine.launch("b", 0.0, 0.5)}
    gpu = machine.gpu._replace(evict=None)
    times = timing.time_on_gpu(calls, 2, 4.0, gpu, machine.clock).times
    # The host's work counts: the call before is over.
    assert times["a"].median == 2.0**-8 + 0.25
    assert times["b"].median == 0.5 + RECORD
    turns = ["a", "a", "b", "b"]
    assert [name for name, *_ in machine.calls] == turns * (1 + times["a"].rounds)
    numbers = [number for name, number, _ in machine.calls if name == "a"]
    assert numbers[:6] == [0, 0, 1, 1, 0, 0]
    assert not any(cold for *_, cold in machine.calls[1:])


def test_an_eviction_hides_nothing_of_what_the_host_does_in_a_call():
    machine = Machine()
    calls = {"a": machine.launch("a", EVICTION / 2, 2.0**-16)}
    times = timing.time_on_gpu(calls, 2, 1.0, machine.gpu, machine.clock).times
    assert times["a"].median == EVICTION / 2 + 2.0**-16 + COLD
    assert times["a"].rounds == timing.MOST_ROUNDS


def test_the_first_call_on_a_gpu_is_a_warm_up():
    machine = Machine()
    calls = {"a": machine.launch("a", 0.0, iter([1.0, 0.125, 0.125, 0.125]))}
    times = timing.time_on_gpu(calls, 2, 0.0, machine.gpu, machine.clock).times
    assert times["a"] == (0.125 + COLD + RECORD,) * 3 + (timing.LEAST_ROUNDS,)


def test_a_slow_host_does_not_spend_more_than_its_time():
    machine = Machine()
    times = timing.time_on_gpu(
        {"a": machine.launch("a", 1.0, 2.0**-10)}, 1, 6.0, machine.gpu, machine.clock
    ).times
    assert times["a"].rounds == 5
    assert machine.now == pytest.approx(6.0, rel=0.01)


def test_replays_have_the_time_of_the_gpu_alone():
    machine = Machine()
    replay = machine.launch("a", EVICTION / 2, 2.0**-17)
    found = timing.time_replays(replay, 2, 1.0, machine.gpu, machine.clock)
    assert found.empty == RECORD
    assert found.times == (2.0**-17 + COLD,) * 3 + (timing.MOST_ROUNDS,)
    assert all(cold for *_, cold in machine.calls)
    batches = timing.MOST_ROUNDS // timing.BATCH
    untimed = len(machine.calls) - batches * (1 + timing.BATCH)
    assert [number for _, number, _ in machine.calls[untimed : untimed + 4]] == [0, 1, 0, 1]
    assert machine.waits == untimed / 2 + 1 + batches


def test_a_gpu_that_was_idle_is_busy_before_replays_are_timed():
    machine = Machine()
    works = []

    def event():
        made = machine.event()
        record = made.record
        made.record = lambda: (record(), works.append((len(machine.calls), machine.now)))
        return made

    replay, gpu = machine.launch("a", 0.0, 2.0**-10), machine.gpu._replace(event=event)
    timing.time_replays(replay, 2, 1.0, gpu, machine.clock)
    # The first interval with nothing in it is the first whose records have no call between them.
    pairs = zip(works[::2], works[1::2])
    before, now = next(begin for begin, end in pairs if begin[0] == end[0])
    assert timing.WARM_UP <= now < timing.WARM_UP + 2.0**-8
    assert before == pytest.approx(timing.WARM_UP / (2.0**-10 + COLD + EVICTION), rel=0.1)
    assert [number for _, number, _ in machine.calls[:before]] == [0, 1] * (before // 2)


def test_a_replay_whose_launch_takes_longer_than_the_eviction():
    machine = Machine()
    launch, work = 4 * EVICTION, 8 * EVICTION
    found = timing.time_replays(
        machine.launch("a", launch, work), 2, 1.0, machine.gpu, machine.clock
    )
    assert found.times[:3] == (work + COLD,) * 3


@pytest.mark.parametrize("seconds, rounds", [(1.0, 5), (4.0, timing.LEAST_ROUNDS)])
def test_replays_spend_their_budget(seconds, rounds):
    machine = Machine()
    replay = machine.launch("a", 0.0, seconds)
    found = timing.time_replays(replay, 2, 5.01, machine.gpu, machine.clock)
    assert found.times.rounds == rounds
    assert len(machine.calls) == 2 + 1 + rounds


def test_a_replay_takes_no_less_than_events_can_tell():
    machine = Machine()

    def slow_event():
        made = machine.event()
        made.elapsed_time = lambda end: 0.002
        return made

    replay, gpu = machine.launch("a", 0.0, 0.0), machine.gpu._replace(event=slow_event)
    found = timing.time_replays(replay, 2, 1.0, gpu, machine.clock)
    assert found.empty == pytest.approx(2e-6)
    assert found.times.median == timing.RESOLUTION > 0


def test_an_eviction_is_larger_than_the_cache():
    assert timing.eviction_bytes(100) > 2 * 100


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
            {"bad": breaks_after(count), "good": machine.launch("good", 0.0, 0.5)},
            *(1, 4.0, machine.gpu, machine.clock),
        ),
    ):
        assert list(timed.times) == ["good"]
        assert timed.times["good"].median == pytest.approx(0.5, rel=0.01)
        assert timed.times["good"].rounds >= timing.LEAST_ROUNDS
        assert str(timed.failures["bad"]) == "broke"


def test_each_warms_up_and_is_waited_for():
    machine = Machine()
    calls = {"a": machine.launch("a", 0.0, 0.25), "b": machine.launch("b", 0.0, 0.5)}
    ready, failures = timing.warm_up(calls, 2, machine.gpu)
    assert ready == calls
    assert failures == {}
    assert [name for name, *_ in machine.calls] == ["a"] * 2 + ["b"] * 2
    assert [number for _, number, _ in machine.calls] == [0, 1] * 2
    assert machine.waits == 2
    assert machine.now == machine.done


@pytest.mark.parametrize("count", [0, 1])
def test_who_fails_when_it_warms_up_is_not_called_again(count):
    machine = Machine()
    calls = {"bad": breaks_after(count), "good": machine.launch("good", 0.0, 0.5)}
    ready, failures = timing.warm_up(calls, 2, machine.gpu)
    assert ready == {"good": calls["good"]}
    assert list(failures) == ["bad"]
    assert str(failures["bad"]) == "broke"


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
