"""Small persistent kernels, for the builds that sanitizers slow down; run.sh runs this file.

Every way to multiply, to cut the batch, to add up the parts of K, and to walk.
"""

from __future__ import annotations

import emulated
import pytest
from kernel_cases import Case, assert_agrees
from test_persistent import persistent

LENGTHS = [4, 0, 3, 1, 4, 2, 4, 4, 1]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    ("mode", "numbers"),
    [
        ("lstm", {"groups": 2, "backward_row_tiles": 1}),
        ("lstm", {"groups": 1, "directions": 2, "backward_row_tiles": 2}),
        ("gru", {"groups": 1, "directions": 1, "backward_row_tiles": 4}),
        ("rnn_tanh", {"groups": 2, "directions": 2, "backward_row_tiles": 2}),
    ],
)
def test_parts(mode, numbers, dtype):
    algorithm = persistent(batch_tiles=1, cluster=0, **numbers)
    case = Case(
        mode, 4, 9, 3, 40, 2, device="cuda", dtype=dtype, lengths=LENGTHS, algorithm=algorithm
    )
    assert_agrees(case)


@pytest.mark.parametrize("mode", ["lstm", "gru"])
def test_clusters(mode):
    algorithm = persistent(batch_tiles=1, backward_row_tiles=2, split=4, cluster=1)
    with emulated.compute_capability(90):
        assert_agrees(Case(mode, 4, 5, 3, 40, device="cuda", algorithm=algorithm))
