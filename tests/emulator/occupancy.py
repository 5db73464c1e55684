"""Grids on a device that holds fewer blocks at once than it has multiprocessors: an emulated one.

run.py runs this file. What the device says of a kernel is kept as long as the process lives, so
every check runs in a new one.
"""

from __future__ import annotations

import multiprocessing

import emulated
import emulated_library  # noqa: F401  # before fastrnn.kernels: a new process has no plugins
import pytest
from kernel_cases import KernelCase, compare, persistent

from fastrnn import _native, kernels

STEPWISE = "stepwise"


def in_new_process(check, *arguments):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(check, arguments)


def limit(blocks, in_clusters):
    _native.library().device_facts(0)  # It is only the kernels that find less room.
    emulated.limit_resident_blocks(blocks, in_clusters)


def grid(p):
    return p.blocks, p.groups, p.directions, p.launches


def plan_of(case):
    sizes = (case.steps, case.rows, case.hidden)
    options = {"tf32": case.tf32, "algorithm": case.algorithm}
    return kernels.plan(case.mode, *sizes, directions=case.directions, **options, device=0)


def check_grids(limits, case, forward, backward):
    """Fail unless the passes run right, and with these grids, however large the device seems."""
    limit(*limits)
    chosen = plan_of(case)
    limit(-1, -1)
    assert plan_of(case) == chosen
    limit(*limits)  # Grids that are larger are refused.
    for p, expected in ((chosen.forward, forward), (chosen.backward, backward)):
        assert (STEPWISE if p.algorithm == STEPWISE else grid(p)) == expected, str(p)
    before = emulated.launches()
    result = case.forward(reserve=True)
    launched = emulated.launches() - before
    # Two stretches of time, or as many launches as steps.
    stepwise = chosen.forward.algorithm == STEPWISE
    parts = case.directions // (1 if stepwise else chosen.forward.directions)
    assert launched == parts * (case.steps if stepwise else 2 * chosen.forward.launches)
    compare(case, result, case.backward(result.reserve), "tf32")


PLAIN = persistent(batch_tiles=1, row_tiles=2, backward_row_tiles=1)
CLUSTERS = persistent(batch_tiles=2, row_tiles=4, backward_row_tiles=4, split=4, cluster=1)


# 17 rows are three tiles, or two of the wider ones that go with clusters. The hidden units are
# those of three blocks forward, or two wider ones, and two backward, or four in clusters.
@pytest.mark.parametrize(
    ("limits", "algorithm", "directions", "forward", "backward"),
    [
        ((-1, -1), PLAIN, 1, (3, 3, 1, 1), (2, 3, 1, 1)),
        ((6, 0), PLAIN, 1, (3, 2, 1, 2), (2, 3, 1, 1)),
        ((5, 0), PLAIN, 1, (3, 1, 1, 3), (2, 2, 1, 2)),
        ((-1, -1), PLAIN, 2, (3, 3, 2, 1), (2, 3, 1, 1)),
        ((11, 0), PLAIN, 2, (3, 3, 1, 1), (2, 3, 1, 1)),
        ((5, 0), PLAIN, 2, (3, 1, 1, 3), (2, 2, 1, 2)),
        ((-1, -1), CLUSTERS, 1, (2, 2, 1, 1), (4, 2, 1, 1)),
        ((3, 7), CLUSTERS, 1, (2, 1, 1, 2), (4, 1, 1, 2)),
        ((1, 3), "auto", 1, STEPWISE, STEPWISE),
        ((0, 0), "auto", 2, STEPWISE, STEPWISE),
    ],
)
@pytest.mark.parametrize("mode", ["lstm", "gru"])
def test_a_device_that_holds_less_gets_smaller_grids(
    mode, limits, algorithm, directions, forward, backward
):
    hidden = 24 if mode == "lstm" else 30
    options = {"tf32": True, "algorithm": algorithm}
    case = KernelCase(mode, 6, 17, 3, hidden, directions, device="cuda", **options)
    in_new_process(check_grids, limits, case, forward, backward)


def check_half():
    """Fail unless half the room is left to grids, and none to clusters."""
    limit(20, 0)
    for mode in ("lstm", "gru", "rnn_tanh"):
        chosen = kernels.plan(mode, 100, 32, 256, algorithm="persistent", device=0)
        for p in (chosen.forward, chosen.backward):
            assert (p.algorithm, p.cluster) == ("persistent", 1), str(p)
            assert 10 < p.blocks * p.groups * p.directions <= 20, str(p)


def test_a_device_that_holds_half_runs_persistent_kernels_all_the_same():
    in_new_process(check_half)


def check_refusal(case, message):
    limit(5, 3)
    for run in (case.forward, lambda: plan_of(case)):
        with pytest.raises(ValueError, match=message):
            run()


def test_what_was_asked_for_and_finds_no_room_is_an_error():
    message = (
        r"algorithm is persistent, but no persistent kernel fits 40 multiprocessors with \d+ bytes "
        "of shared memory, which hold 5 blocks at once"
    )
    case = KernelCase("lstm", 3, 3, 3, 200, device="cuda", algorithm="persistent")
    in_new_process(check_refusal, case, message)
