"""fastrnn against what else a user would pick, row by row of the grid.

    pytest bench/ [--full] [-k lstm] [--results FILE] [--limit SECONDS] [--device cpu]

All get the same weights and inputs, and their results are compared with a float64 reference before
anything is timed. A wrong result is reported, and not timed. A row fails when fastrnn does, or, on
a GPU, PyTorch or all of cuDNN; it is stored all the same. The exit status is 75 where nothing
failed and rows are left, and 2, with one line, where someone is missing who has to take part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.cases import Case
from bench.measure import frame, measure

if TYPE_CHECKING:
    from bench.conftest import Session


def test_row(case: Case, session: Session) -> None:
    """Measure and store a row."""
    if session.store.done(case.name):
        pytest.skip("measured before")
    if session.out_of_time():
        session.left += 1
        pytest.skip("the time limit was reached")
    row = frame(case, session.device, session.peaks)
    session.store.begin(row)
    measure(row, case, session.device, session.peers, session.missing, session.budget())
    session.store.add(row)
    if "dead" in row:  # nothing works any more in this process
        pytest.exit(f"{case.name}: {row['dead']}", returncode=1)
    assert not row["failures"], "\n".join(row["failures"])
