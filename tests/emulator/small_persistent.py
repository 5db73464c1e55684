"""Small persistent kernels, for what sanitizers slow down; run.py runs this file.

Every way to multiply, to cut the batch, to add up the parts of K, and to walk.
"""

from __future__ import annotations

import pytest
from kernel_cases import Case, assert_agrees, devices
from test_persistent import capability, persistent

CAPABILITY = capability() if "cuda" in devices() else 0
pytestmark = pytest.mark.skipif(CAPABILITY == 0, reason="no CUDA device, nor an emulated one")

LENGTHS = [4, 0, 3, 1, 4, 2, 4, 4, 1]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    ("mode", "numbers"),
    [
        ("lstm", {"groups": 2, "backward_row_tiles": 1}),
        ("gru", {"groups": 1, "backward_row_tiles": 1}),
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


@pytest.mark.skipif(CAPABILITY < 90, reason="no clusters before compute capability 9.0")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("mode", ["lstm", "gru"])
def test_clusters(mode, dtype):
    # Backward, four blocks add up.
    algorithm = persistent(batch_tiles=2, cluster=1, backward_row_tiles=2, split=4)
    case = Case(mode, 4, 9, 3, 90, device="cuda", dtype=dtype, lengths=LENGTHS, algorithm=algorithm)
    assert_agrees(case)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    ("mode", "numbers"),
    [
        ("lstm", {"batch_tiles": 2}),  # in float32 all chunks are streamed, none is in registers
        ("rnn_tanh", {"batch_tiles": 4}),  # nor is it in float16 with so many sums
    ],
)
def test_streams(mode, numbers, dtype):
    algorithm = persistent(shared_chunks=0, cluster=0, **numbers)
    case = Case(mode, 3, 9, 3, 40, device="cuda", dtype=dtype, algorithm=algorithm)
    assert_agrees(case)
