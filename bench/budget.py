"""How long rows may be timed."""

from __future__ import annotations

import time
from typing import Callable, List, Optional, Tuple

# Seconds to spend on timing one row: in general, and of a GPU's full grid, since a GPU may be there
# for half an hour only.
BUDGET, FULL_BUDGET = 5.0, 1.5
QUICK = 270.0  # seconds that the quick part aims at, of the 300 that it may take
MARGIN = 10.0  # seconds that it aims to end before the time after which no row begins
LEAST_BUDGET = 0.25  # of one of its rows, when these have been taken up


class QuickBudget:
    """Gives the rows of the quick part less time where the machine is slow.

    A row gets its share of what is left, less what rows take for everything but timing: building,
    checking, measuring memory. That is the average of the rows before, or of the latest two where
    these took more. Time begins with the object.

    Parameters
    ----------
    limit
        Seconds after which no row begins.
    """

    def __init__(self, limit: Optional[float] = None, clock: Callable[[], float] = time.monotonic):
        aim = QUICK if limit is None else min(QUICK, limit - MARGIN)
        self._clock, self._ends = clock, clock() + aim
        self._before: Optional[Tuple[float, float]] = (
            None  # when a row began, and what it was given
        )
        self._besides: List[float] = []  # peaks come before the first row, and are in none

    def next(self, rows: int) -> float:
        """Seconds to spend on timing the next row, of so many that are left with it."""
        now = self._clock()
        if self._before is not None:
            begun, given = self._before
            self._besides.append(max(0.0, now - begun - given))
        besides = max(map(_mean, (self._besides, self._besides[-2:])))
        given = max(LEAST_BUDGET, min(BUDGET, (self._ends - now) / rows - besides))
        self._before = now, given
        return given


def _mean(values: List[float]) -> float:
    return sum(values) / max(1, len(values))
