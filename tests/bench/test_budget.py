"""How the quick part's time is shared out, with a clock that moves when a row is measured."""

from __future__ import annotations

import pytest
import sources  # noqa: F401

from bench import budget

ROWS = 16


def spend(before, besides):
    """Seconds that all rows take, and what each of them was given."""
    now = 0.0
    quick = budget.QuickBudget(lambda: now)
    now += before
    given = []
    for row in range(ROWS):
        given.append(quick.next(ROWS - row))
        now += besides + given[-1]
    return now, given


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


def test_rows_that_are_late_are_measured_all_the_same():
    _, given = spend(0.0, 40.0)
    assert given[-1] == budget.LEAST_BUDGET
