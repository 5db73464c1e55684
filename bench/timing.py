"""How calls are timed, on the CPU and on a GPU.

Candidates take turns, so that a machine that changes its clock or has other work does so to all of
them. Clock and events are arguments: tests bring their own.
"""

from __future__ import annotations

import time
from statistics import median, quantiles
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional

LEAST_ROUNDS, MOST_ROUNDS = 3, 200
SHORT = 0.02  # seconds; a shorter call is preceded by one that is not timed
EVENT_SPAN = 0.001  # seconds of work between two events, beside which their own cost is nothing

Call = Callable[[int], None]  # given the number of the input set, runs and waits (CPU) or not (GPU)


class Times(NamedTuple):
    """Seconds of a call."""

    median: float
    low: float  # the quartiles
    high: float
    rounds: int


def summarize(seconds: List[float]) -> Times:
    """Median and quartiles of at least one time."""
    if not seconds:
        raise ValueError("seconds is empty, expected at least one time")
    low, _, high = quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
    return Times(median(seconds), low, high, len(seconds))


def rounds_for(seconds: float, budget: float) -> int:
    """How many rounds of so many seconds fit the budget."""
    return max(LEAST_ROUNDS, min(MOST_ROUNDS, int(budget / max(seconds, 1e-9))))


def time_calls(
    calls: Mapping[str, Call],
    sets: int,
    budget: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Dict[str, Times]:
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

    def once(call: Call, number: int) -> float:
        begun = clock()
        call(number % sets)
        return clock() - begun

    # Of a long call the first round counts, as every round is dear.
    seconds: Dict[str, List[float]] = {name: [once(call, 0)] for name, call in calls.items()}
    estimates = {name: found[0] for name, found in seconds.items()}
    rounds = rounds_for(sum(s * (2 if s < SHORT else 1) for s in estimates.values()), budget)
    for number in range(1, rounds):
        for name, call in calls.items():
            if estimates[name] < SHORT:
                call((number + 1) % sets)
            seconds[name].append(once(call, number))
    return {
        name: summarize(found[1:] if estimates[name] < SHORT else found)
        for name, found in seconds.items()
    }


def time_on_gpu(
    calls: Mapping[str, Call],
    sets: int,
    budget: float,
    event: Callable[[], Any],
    clock: Callable[[], float] = time.perf_counter,
) -> Dict[str, Times]:
    """Time calls that return before their work is done, between two events of a stream.

    Parameters
    ----------
    calls, sets, budget
        As for `time_calls`.
    event
        Makes an event with `record()`, `synchronize()` and `elapsed_time(end)` in milliseconds.
    """

    def between(call: Call, first: int, count: int) -> float:
        begin, end = event(), event()
        begin.record()
        for number in range(first, first + count):
            call(number % sets)
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3 / count

    begun = clock()
    estimates = {name: between(call, 0, 1) for name, call in calls.items()}
    counts = {name: max(1, int(EVENT_SPAN / max(s, 1e-9))) for name, s in estimates.items()}
    counts = {name: min(count, 1000) for name, count in counts.items()}
    rounds = rounds_for(sum(estimates[name] * counts[name] for name in calls), budget)
    seconds: Dict[str, List[float]] = {name: [] for name in calls}
    for number in range(rounds):
        if number >= LEAST_ROUNDS and clock() - begun > 3 * budget:
            break  # the host, not the GPU, is what takes the time
        for name, call in calls.items():
            seconds[name].append(between(call, number * counts[name], counts[name]))
    return {name: summarize(found) for name, found in seconds.items()}


def input_sets(bytes_each: int, cache_bytes: int, most: int = 32) -> int:
    """How many input sets outgrow a cache twice, up to `most`.

    Small inputs never do, but then their reading is no cost worth the trouble. The weights are
    those of every call, as they are in use.
    """
    return max(1, min(most, -(-2 * cache_bytes // max(1, bytes_each))))


class Graph(NamedTuple):
    """A call captured for each input set, or why that cannot be."""

    call: Optional[Call]
    reason: Optional[str]


def capture(torch: Any, call: Call, sets: int) -> Graph:
    """Capture a call's work on the GPU, so that its replay costs the host nothing."""
    graphs = []
    for number in range(sets):
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                call(number)
        except RuntimeError as error:  # a call that waits or allocates cannot be captured
            torch.cuda.synchronize()
            return Graph(None, str(error).strip().splitlines()[0])
        graphs.append(graph)
    return Graph(lambda number: graphs[number].replay(), None)
