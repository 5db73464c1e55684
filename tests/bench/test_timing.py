"""The arithmetic of timing, with a clock and a GPU that only move when work is done."""

from __future__ import annotations

import pytest
from clocks import COLD, EVICTION, RECORD, Machine

from bench.calls import timing


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
    assert times["a"] == (0.25 + COLD + RECORD,) * 3 + (6,)
    assert times["b"].median == 0.5 + COLD + RECORD
    assert [name for name, *_ in machine.calls] == ["a", "b"] * 9
    assert [number for name, number, _ in machine.calls if name == "a"] == [0, 1, 2] * 3
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
    assert [name for name, *_ in machine.calls] == turns * (2 + times["a"].rounds)
    numbers = [number for name, number, _ in machine.calls if name == "a"]
    assert numbers[:6] == [0, 0, 1, 1, 0, 0]
    assert not any(cold for *_, cold in machine.calls[1:])


def test_an_eviction_hides_nothing_of_what_the_host_does_in_a_call():
    machine = Machine()
    calls = {"a": machine.launch("a", EVICTION / 2, 2.0**-16)}
    times = timing.time_on_gpu(calls, 2, 1.0, machine.gpu, machine.clock).times
    assert times["a"].median == EVICTION / 2 + 2.0**-16 + COLD
    assert times["a"].rounds == timing.MOST_ROUNDS


def test_the_first_call_of_each_input_set_on_a_gpu_is_a_warm_up():
    machine = Machine()
    calls = {"a": machine.launch("a", 0.0, iter([1.0, 0.5, 0.125, 0.125, 0.125]))}
    times = timing.time_on_gpu(calls, 2, 0.0, machine.gpu, machine.clock).times
    assert times["a"] == (0.125 + COLD + RECORD,) * 3 + (timing.LEAST_ROUNDS,)


def test_a_slow_host_does_not_spend_more_than_its_time():
    machine = Machine()
    times = timing.time_on_gpu(
        {"a": machine.launch("a", 1.0, 2.0**-10)}, 1, 6.0, machine.gpu, machine.clock
    ).times
    assert times["a"].rounds == 6
    assert machine.now == pytest.approx(1 + 6.0, rel=0.01)  # the warm-up comes on top


def test_replays_have_the_time_of_the_gpu_alone():
    machine = Machine()
    replay = machine.launch("a", EVICTION / 2, 2.0**-17)
    times, empty = timing.time_replays(replay, 2, 1.0, machine.gpu, machine.clock)
    assert empty == RECORD
    assert times == (2.0**-17 + COLD,) * 3 + (timing.MOST_ROUNDS,)
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
    replay = machine.launch("a", launch, work)
    times, _ = timing.time_replays(replay, 2, 1.0, machine.gpu, machine.clock)
    assert times[:3] == (work + COLD,) * 3


@pytest.mark.parametrize("seconds, rounds", [(1.0, 5), (4.0, timing.LEAST_ROUNDS)])
def test_replays_spend_their_budget(seconds, rounds):
    machine = Machine()
    replay = machine.launch("a", 0.0, seconds)
    times, _ = timing.time_replays(replay, 2, 5.01, machine.gpu, machine.clock)
    assert times.rounds == rounds
    assert len(machine.calls) == 2 + 1 + rounds


def test_a_replay_takes_no_less_than_events_can_tell():
    machine = Machine()

    def slow_event():
        made = machine.event()
        made.elapsed_time = lambda end: 0.002
        return made

    replay, gpu = machine.launch("a", 0.0, 0.0), machine.gpu._replace(event=slow_event)
    times, empty = timing.time_replays(replay, 2, 1.0, gpu, machine.clock)
    assert empty == pytest.approx(2e-6)
    assert times.median == timing.RESOLUTION > 0


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
