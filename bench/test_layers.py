"""fastrnn against what else a user would pick, row by row of the grid.

    pytest bench/ [--full] [-k lstm] [--results FILE] [--limit SECONDS]

All get the same weights and inputs, and their results are compared with a float64 reference before
anything is timed. Who is wrong is said to be so, and not timed; fastrnn being wrong is a failure.
"""

from __future__ import annotations

import pytest

from bench.measure import measure


def test_row(case, session):
    if session.store.done(case.name):
        pytest.skip("measured before")
    if session.out_of_time():
        session.left += 1
        pytest.skip("the time limit was reached")
    memory = None
    if session.device == "cpu":
        from bench.memory import of_process as memory
    row = measure(case, session.device, session.peers, session.missing, session.peaks, memory)
    session.store.add(row)
    ours = row["peers"]["fastrnn"]
    assert ours["status"] != "wrong", ours["reason"]
