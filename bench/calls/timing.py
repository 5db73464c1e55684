"""How calls are timed, on the CPU and on a GPU.

Candidates take turns, so that a machine that changes its clock or has other work does so to all of
them. One that fails takes no further turn. Clock and events are arguments: tests bring their own.

On a GPU each timed call and each timed replay comes after an eviction, a pass over other memory
that is more than the L2 cache holds. So inputs come from the device's memory, however small they
are, and weights do too: between two calls of a layer, a program runs the other layers and an
optimizer, which touches every weight, its gradient and its moments. A loop of one layer and nothing
else may find its weights in the cache, and be faster. Where a program is such a loop, the same call
comes before each timed one, in place of an eviction.
"""

from __future__ import annotations

import time
from functools import partial
from statistics import median, quantiles
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

LEAST_ROUNDS, MOST_ROUNDS = 3, 200
SHORT = 0.02  # seconds; a shorter call is preceded by one that is not timed
WARM_UP = 0.05  # seconds of untimed replays, after which a GPU that was idle has its clock back
BATCH = 10  # replays between two waits of the host
RESOLUTION = 0.5e-6  # seconds that two events tell apart
EVICTED_CACHES = 4  # the size of an eviction; it also gives the host time to queue what follows

Call = Callable[[int], None]  # given the number of the input set, runs and waits (CPU) or not (GPU)


class Times(NamedTuple):
    """Seconds of a call."""

    median: float
    low: float  # the quartiles
    high: float
    rounds: int


class Gpu(NamedTuple):
    """What is used of a GPU's stream. The host does not wait in any but `synchronize()`."""

    event: Callable[[], Any]  # has record(), synchronize(), and elapsed_time(end) in milliseconds
    evict: Optional[Callable[[], Any]]  # None: calls find in the cache what the one before left


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

    def result(self, untimed: Callable[[str], int]) -> Timed:
        """Summaries, without the first `untimed(name)` times."""
        return Timed(
            {name: summarize(self.seconds[name][untimed(name) :]) for name in self.calls},
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

    def turn(number: int, name: str, call: Call) -> float:
        if first[name] < SHORT:
            call((number + 1) % sets)
        return timed(call, number)

    for number in range(1, rounds):
        turns.once(partial(turn, number))
    return turns.result(lambda name: 1 if first[name] < SHORT else 0)


def time_on_gpu(
    calls: Mapping[str, Call],
    sets: int,
    budget: float,
    gpu: Gpu,
    clock: Callable[[], float] = time.perf_counter,
) -> Timed:
    """Time calls that return before their work is done, each between two events of its own.

    The host's work counts as far as the GPU waits for it. So a call is made when the eviction is
    over: behind one that still runs, the host would get ahead, and as much of its work would hide.
    Without evictions, it is made when the same call, untimed, is over.

    Parameters
    ----------
    calls, sets, budget
        As for `time_calls`. The first call of each input set is not counted.
    """
    turns = _Turns(calls)

    def turn(number: int, name: str, call: Call) -> float:
        over, begin, end = (gpu.event() for _ in range(3))
        if gpu.evict is None:
            call(number % sets)
        else:
            gpu.evict()
        over.record()
        over.synchronize()
        begin.record()
        call(number % sets)
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3

    for number in range(sets):
        turns.once(partial(turn, number))
    begun = clock()
    for number in range(MOST_ROUNDS):
        if number >= LEAST_ROUNDS and clock() - begun > budget:
            break
        turns.once(partial(turn, number))
    return turns.result(lambda name: sets)


def time_replays(
    replay: Call,
    sets: int,
    budget: float,
    gpu: Gpu,
    clock: Callable[[], float] = time.perf_counter,
) -> Tuple[Times, float]:
    """Time replays of a graph, of which only the GPU's work counts.

    They wait in the queue while the GPU evicts, so that none waits for the host, which waits once
    a batch; unless to issue one takes longer than the eviction and the one before together. The
    median of what an empty interval takes, measured in the same way, is subtracted from each; what
    remains is never less than events can tell. Replays that are not timed come first: while the
    host checked results, the GPU had nothing to do, and may have lowered its clock.

    Parameters
    ----------
    replay, sets, budget
        As for `time_calls`, but of one.

    Returns
    -------
    times, empty
        The empty interval is in seconds.
    """
    two = [partial(replay, number % sets) for number in range(2)]
    begun = last = clock()
    while True:
        _queued(two, gpu)
        now = clock()
        if now - begun >= WARM_UP:
            break
        last = now
    rounds = rounds_for((now - last) / 2, budget)
    empty = median(_queued([lambda: None] * (1 + BATCH), gpu))
    seconds: List[float] = []
    while len(seconds) < rounds:
        first = len(seconds)
        end = min(first + BATCH, rounds)
        seconds += _queued([partial(replay, n % sets) for n in range(first, end + 1)], gpu)
    return summarize([max(s - empty, RESOLUTION) for s in seconds]), empty


def _queued(works: Sequence[Callable[[], None]], gpu: Gpu) -> List[float]:
    """Seconds of each but the first, whose launch may take the host longer than the eviction.

    While the GPU does that one's work, the host gets ahead.
    """
    pairs = []
    for work in works:
        begin, end = gpu.event(), gpu.event()
        if gpu.evict is not None:
            gpu.evict()
        begin.record()
        work()
        end.record()
        pairs.append((begin, end))
    pairs[-1][1].synchronize()
    return [begin.elapsed_time(end) / 1e3 for begin, end in pairs[1:]]
