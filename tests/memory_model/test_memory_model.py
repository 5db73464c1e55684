"""The exchange between blocks, checked exhaustively against the PTX memory model.

Every execution of two to four blocks and three rounds that the axioms allow is looked at, and each
barrier, fence, acquire, release and scope is weakened in turn, which must break something.

What this does not show:

- Progress. A wait ends because a cooperative launch has all blocks resident, which no axiom says.
- Tagged words are not overwritten before they are read because of what numbers are computed from:
  loads end the loops that wait for them, and stores come after. That is the axiom No Thin Air's and
  the barriers' doing, and is checked as an order of dependencies.
- st.async is taken at its word in the PTX ISA: its count at the mbarrier is a release in the scope
  of the cluster. The axioms have no asynchronous proxy. `test_what_relies_on_the_counts_release`
  says what would be left to the axiom No Thin Air if the count ordered its own store alone.
- More blocks and rounds. Flags only grow and buffers alternate, so a round concerns the two before
  it, and a block each other block by itself or through one in between.
- That the transcription is right in what it does not name, such as which buffer a round uses.
"""

from __future__ import annotations

from typing import Dict, Iterator, List, Set, Tuple

import pytest
import sources
from axioms import Event, Program, Thread, check
from builder import Variant
from protocols import CASES, OUTSIDE, Case

ORDERS = sources.orders()
LEFT_OUT = {
    "__syncthreads",
    "__syncwarp",
    "ClusterBarrier",
    "ExpectBytes",
    "InitByteBarrier",
    "Publish",
    "Wait",
    "WaitForBytes",
}
COUNT_ONLY = "an arrival has to be counted, but carries nothing to those who wait"
# What may be weakened unnoticed, and why.
NOT_NEEDED = {
    "ExpectBytes: relaxed": COUNT_ONLY,
    "ExpectBytes: weak": COUNT_ONLY,
}


def mutants(case: Case) -> Iterator[Tuple[str, Variant]]:
    """Yield each way to weaken a protocol by one primitive, order, scope, buffer or reset."""
    built = case.build(ORDERS, Variant())
    names = []
    for site in built.sites:
        name = site.split()[-1].partition("#")[0]
        if name in LEFT_OUT:
            yield f"without {site}", Variant(without=frozenset([site]))
        if name == "Wait":
            yield f"too early: {site}", Variant(early=frozenset([site]))
        if name not in names and name != "ClusterBarrier":
            names.append(name)
    for name in names:
        order, scope = ORDERS.get(name, ("weak", ""))
        if order == "weak":
            continue
        if order != "relaxed":
            yield f"{name}: relaxed", Variant(orders=((name, "relaxed", scope),))
        yield f"{name}: weak", Variant(orders=((name, "weak", scope),))
        wider = ["cta", "cluster", "gpu"]
        for narrower in wider[: wider.index(scope)]:
            yield f"{name}: .{narrower}", Variant(orders=((name, order, narrower),))
    if "LoadAcquire" in names or "LoadTagged16" in names:
        yield "one buffer", Variant(buffers=1)
    if "LoadAcquire" in names:
        yield "flags that were not zeroed", Variant(old_flags=True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.blocks}")
def test_every_execution_is_right(case):
    verdict = check(case.build(ORDERS, Variant()).program)
    assert verdict.executions > 0
    assert not verdict.faults


BY_NAME: Dict[str, List[Case]] = {}
for each in CASES:
    BY_NAME.setdefault(each.name, []).append(each)


@pytest.mark.parametrize("cases", BY_NAME.values(), ids=BY_NAME)
def test_every_weakening_breaks_something(cases):
    def notices(case: Case, variant: Variant) -> bool:
        verdict = check(case.build(ORDERS, variant).program, interleaved=True)
        return bool(verdict.faults) or verdict.executions == 0  # 0: it waits for ever

    found = dict(mutants(cases[0]))
    unnoticed = {
        name for name, variant in found.items() if not any(notices(case, variant) for case in cases)
    }
    assert unnoticed == set(NOT_NEEDED) & set(found)


def test_the_sources_call_the_primitives_that_are_checked():
    found = sources.sites()
    transcribed: Dict[str, Set[str]] = {}
    # What differs has to be transcribed anew, in protocols.py.
    for sites in [*(case.build(ORDERS, Variant()).sites for case in CASES), list(OUTSIDE)]:
        calls: Dict[str, List[str]] = {}
        for site in sites:
            function, _, name = site.rpartition(" ")
            calls.setdefault(function, []).append(name)
        for function, names in calls.items():
            assert names == [name for name in found.get(function, []) if name in names], function
            transcribed.setdefault(function, set()).update(names)
    assert transcribed == {function: set(names) for function, names in found.items()}


def test_what_relies_on_the_counts_release():
    # The stores of two steps later could come before this step's loads. No sum would be stale, and
    # one of a later step would be computed from what is loaded here: out of thin air.
    case = BY_NAME["backward, in clusters"][0]
    verdict = check(case.build(ORDERS, Variant(counts_alone=True)).program, interleaved=True)
    assert set(verdict.faults) == {"bytes", "parts"}


def litmus(
    *threads: List[Tuple[str, str, int, str, str]], blocks: Tuple[int, ...] = (0, 1, 2)
) -> int:
    """Return how many executions of (kind, place, value, order, scope) there are without faults."""
    program = Program()
    for block, events in zip(blocks, threads):
        for event in events:
            program.add(Event(Thread(block, 0, 0), *event))
    verdict = check(program)
    return 0 if verdict.faults else verdict.executions


def test_litmus_tests_of_the_ptx_isa():
    store = ("write", "data", 1, "weak", "gpu")
    load = ("read", "data", 1, "weak", "gpu")
    release, acquire = ("write", "flag", 1, "release", "gpu"), ("poll", "flag", 1, "acquire", "gpu")
    relaxed = ("write", "flag", 1, "relaxed", "gpu"), ("poll", "flag", 1, "relaxed", "gpu")
    # Message passing, and what takes the order from it.
    assert litmus([store, release], [acquire, load]) == 1
    assert litmus([store, relaxed[0]], [acquire, load]) == 0
    assert litmus([store, release], [relaxed[1], load]) == 0
    assert litmus([release, store], [acquire, load]) == 0
    assert litmus([store, (*release[:4], "cta")], [acquire, load]) == 0
    # A release carries what its thread has acquired (WRC), and a later strong store extends it.
    passed_on = [acquire, ("write", "next", 1, "release", "gpu")]
    waits = [("poll", "next", 1, "acquire", "gpu"), load]
    assert litmus([store, release], passed_on, waits) == 1
    assert (
        litmus(
            [store, release, ("write", "flag", 2, "relaxed", "gpu")],
            [("poll", "flag", 2, "acquire", "gpu"), load],
        )
        == 1
    )
    # Coherence of reads (CoRR): of the two stores, the second load may not see the older.
    twice = [("write", "flag", 1, "relaxed", "gpu"), ("write", "flag", 2, "relaxed", "gpu")]
    assert litmus(twice, [relaxed[1], relaxed[1]]) == 3
