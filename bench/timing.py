"""How calls are timed, on the CPU and on a GPU.

Candidates take turns, so that a machine that changes its clock or has other work does so to all of
them. One that fails takes no further turn. Clock and events are arguments: tests bring their own.
"""

from __future__ import annotations

import time
from functools import partial
from statistics import median, quantiles
from typing import Any, Callable, Dict, List, Mapping, NamedTuple

LEAST_ROUNDS, MOST_ROUNDS = 3, 200
SHORT = 0.02  # seconds; a shorter call is preceded by one that is not timed
EVENT_SPAN = 0.001  # seconds of work between two events, beside which their own cost is nothing
MOST_SETS = 64

Call = Callable[[int], None]  # given the number of the input set, runs and waits (CPU) or not (GPU)


class Times(NamedTuple):
    """Seconds of a call."""

    median: float
    low: float  # the quartiles
    high: float
    rounds: int


class Timed(NamedTuple):
    """What became of the candidates, by name: each is in one of the two."""

    times: Dict[str, Times]
    failures: Dict[str, Exception]


def summarize(seconds: List[float]) -> Times:
    """Median and quartiles of at least one time."""
    if not seconds:
        raise ValueError("seconds is empty, expected at least one time")
    low, _, high = quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
    return Times(median(seconds), low, high, len(seconds))


def rounds_for(seconds: float, budget: float) -> int:
    """How many rounds of so many seconds fit the budget."""
    return max(LEAST_ROUNDS, min(MOST_ROUNDS, int(budget / max(seconds, 1e-9))))


class _Turns:
    """Candidates that have not failed yet, and their times."""

    def __init__(self, calls: Mapping[str, Call]):
        self.calls = dict(calls)
        self.seconds: Dict[str, List[float]] = {name: [] for name in calls}
        self.failures: Dict[str, Exception] = {}

    def once(self, time_one: Callable[[str, Call], float]) -> None:
        """Time each of them once."""
        for name, call in list(self.calls.items()):
            try:
                self.seconds[name].append(time_one(name, call))
            except Exception as error:  # whatever it is, it is this candidate's, and is reported
                self.failures[name] = error
                del self.calls[name]

    def result(self, skip: Callable[[str], int]) -> Timed:
        """Summaries, without the first `skip(name)` times."""
        return Timed(
            {name: summarize(self.seconds[name][skip(name) :]) for name in self.calls},
            self.failures,
        )


def time_calls(
    calls: Mapping[str, Call],
    sets: int,
    budget: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Timed:
    """Time calls that wait until they are done, in rounds of one call of each.

    A short call is run once before, untimed: otherwise it would pay for the caches and the threads
    of the one before it, which takes no turn in a program that uses only one library.

    Parameters
    ----------
    calls
        By name. Each has been called before.
    sets
        How many input sets the calls have.
    budget : float
        Seconds to spend on all of them.
    """
    turns = _Turns(calls)

    def timed(call: Call, number: int) -> float:
        begun = clock()
        call(number % sets)
        return clock() - begun

    # Of a long call the first round counts, as every round is dear.
    turns.once(lambda name, call: timed(call, 0))
    first = {name: turns.seconds[name][0] for name in turns.calls}
    rounds = rounds_for(sum(s * (2 if s < SHORT else 1) for s in first.values()), budget)

    def warm(number: int, name: str, call: Call) -> float:
        if first[name] < SHORT:
            call((number + 1) % sets)
        return timed(call, number)

    for number in range(1, rounds):
        turns.once(partial(warm, number))
    return turns.result(lambda name: 1 if first[name] < SHORT else 0)


def time_on_gpu(
    calls: Mapping[str, Call],
    sets: int,
    budget: float,
    event: Callable[[], Any],
    clock: Callable[[], float] = time.perf_counter,
) -> Timed:
    """Time calls that return before their work is done, between two events of a stream.

    Parameters
    ----------
    calls, sets, budget
        As for `time_calls`.
    event
        Makes an event with `record()`, `synchronize()` and `elapsed_time(end)` in milliseconds.
    """
    turns = _Turns(calls)

    def between(call: Call, first: int, count: int) -> float:
        begin, end = event(), event()
        begin.record()
        for number in range(first, first + count):
            call(number % sets)
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3 / count

    begun = clock()
    turns.once(lambda name, call: between(call, 0, 1))
    first = {name: turns.seconds[name][0] for name in turns.calls}
    counts = {name: min(1000, max(1, int(EVENT_SPAN / max(s, 1e-9)))) for name, s in first.items()}
    rounds = rounds_for(sum(first[name] * counts[name] for name in first), budget)

    def one_turn(number: int, name: str, call: Call) -> float:
        return between(call, number * counts[name], counts[name])

    for number in range(rounds):
        if number >= LEAST_ROUNDS and clock() - begun > 3 * budget:
            break  # the host, not the GPU, is what takes the time

        turns.once(partial(one_turn, number))
    return turns.result(lambda name: 1)


def input_sets(set_bytes: int, cache_bytes: int, most_bytes: int) -> int:
    """How many input sets a call rotates through, so that it does not find them in a cache.

    As many as outgrow the cache twice, but no more than fit into `most_bytes`, and at most
    MOST_SETS: sets that are smaller than a 32nd of the cache are read in no time that counts. Two
    at least. Weights are not rotated: they are in use by every step, and by the next call too.
    """
    fit = min(MOST_SETS, most_bytes // max(1, set_bytes))
    return int(max(2, min(fit, -(-2 * cache_bytes // max(1, set_bytes)))))
