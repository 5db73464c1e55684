"""How long rows may be timed."""

from __future__ import annotations

import time
from typing import Callable, List, Optional

# Seconds to spend on timing one row: in general, and of a GPU's full grid, since a GPU may be there
# for half an hour only.
BUDGET, FULL_BUDGET = 5.0, 1.5
QUICK = 270.0  # seconds that the quick part aims at, of the 300 that it may take
LEAST_BUDGET = 0.5  # of one of its rows, when these have been taken up


class QuickBudget:
    """Gives the rows of the quick part less time where the machine is slow.

    A row gets its share of what is left, less what the rows before took on average for everything
    but timing: building, checking, measuring memory. Time begins with the object.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock, self._ends = clock, clock() + QUICK
        self._first: Optional[float] = None  # when the first row began: peaks come before it
        self._given: List[float] = []

    def next(self, rows: int) -> float:
        """Seconds to spend on timing the next row, of so many that are left with it."""
        now = self._clock()
        if self._first is None:
            self._first = now
        besides = (now - self._first - sum(self._given)) / max(1, len(self._given))
        share = (self._ends - now) / rows - max(0.0, besides)
        self._given.append(max(LEAST_BUDGET, min(BUDGET, share)))
        return self._given[-1]
