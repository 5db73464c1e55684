"""How the quick part's time is shared out, with a clock that moves when a row is measured."""

from __future__ import annotations

import itertools
import random
import sys

import pytest
import sources

sys.path.append(str(sources.ROOT / "tests" / "gpu"))
import gpu_check

from bench import budget

ROWS = 16


def rows(before, besides, limit=None):
    """When each row begins, what it is given, and when it ends.

    Parameters
    ----------
    besides
        Gives what each takes for everything but timing.
    """
    now = 0.0
    quick = budget.QuickBudget(limit, lambda: now)
    now += before  # the peaks
    for row in range(ROWS):
        begun, given = now, quick.next(ROWS - row)
        now += next(besides) + given
        yield begun, given, now


def spend(before, besides, limit=None):
    """Seconds that all rows take, and what each of them was given."""
    found = list(rows(before, itertools.repeat(besides), limit))
    return found[-1][-1], [given for _, given, _ in found]


def test_where_time_is_enough_each_row_has_all_it_may_have():
    _, given = spend(30.0, 9.0)
    assert given == [budget.BUDGET] * ROWS


@pytest.mark.parametrize("before, besides", [(30.0, 12.0), (100.0, 9.0), (0.0, 16.0)])
def test_where_it_is_not_rows_have_less_and_all_end_in_time(before, besides):
    took, given = spend(before, besides)
    assert before + ROWS * (besides + budget.BUDGET) > budget.QUICK
    assert took == pytest.approx(budget.QUICK)
    assert given[0] == budget.BUDGET
    assert min(given) >= budget.LEAST_BUDGET


@pytest.mark.parametrize("limit, besides", [(200.0, 8.0), (budget.QUICK, 10.0)])
def test_all_end_before_the_time_after_which_none_begins(limit, besides):
    took, given = spend(30.0, besides, limit)
    assert took == pytest.approx(limit - budget.MARGIN)
    assert min(given) > budget.LEAST_BUDGET
    assert spend(30.0, 12.0, 1000.0) == spend(30.0, 12.0)


def costs(low, high):
    """Seconds that rows may take for everything but timing: the same ones, and others."""
    yield from (itertools.repeat(one) for one in (low, high))
    half = ROWS // 2
    for first, last in ((low, high), (high, low)):
        yield itertools.chain([first] * half, [last] * half)
    for seed in range(20):
        drawn = random.Random(seed)
        yield iter([drawn.uniform(low, high) for _ in range(ROWS)])


@pytest.mark.parametrize("peaks", [20.0, 40.0, 60.0])
def test_a_check_has_all_rows_within_its_step(peaks, tmp_path):
    step = next(s for s in gpu_check.test_steps(tmp_path) if s.name == "benchmarks")
    limit = float(step.command[step.command.index("--limit") + 1])
    for besides in costs(8.0, 14.0):
        found = list(rows(peaks, besides, limit))
        assert max(begun for begun, _, _ in found) <= limit
        assert found[-1][-1] <= gpu_check.LIMIT


def test_rows_that_are_late_are_measured_all_the_same():
    _, given = spend(0.0, 40.0)
    assert given[-1] == budget.LEAST_BUDGET
