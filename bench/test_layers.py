"""fastrnn against what else a user would pick, row by row of the grid.

    pytest bench/ [--full] [-k lstm] [--results FILE] [--limit SECONDS] [--device cpu]

All get the same weights and inputs, and their results are compared with a float64 reference before
anything is timed. Who is wrong is said to be so, and not timed. A row fails when fastrnn does, or,
on a GPU, all of cuDNN or PyTorch; it is stored all the same. The exit status is 75 where nothing
failed and rows are left, and 2, with one line, where someone is missing who has to take part.
"""

from __future__ import annotations

import pytest

from bench.measure import frame, measure


def test_row(case, session):
    if session.store.done(case.name):
        pytest.skip("measured before")
    if session.out_of_time():
        session.left += 1
        pytest.skip("the time limit was reached")
    memory = None
    if session.device == "cpu":
        from bench.memory import of_process as memory
    session.store.begin(frame(case, session.device, session.peaks))
    row = measure(
        case,
        session.device,
        session.peers,
        session.missing,
        session.peaks,
        memory,
        session.budget(),
        session.store.rows,
    )
    session.store.add(row)
    if "dead" in row:  # nothing works any more in this process
        pytest.exit(f"{case.name}: {row['dead']}", returncode=1)
    assert not row["failures"], "\n".join(row["failures"])
