"""Small persistent kernels, for what sanitizers slow down; run.py runs this file.

Every way to multiply, to cut the batch, to add up the parts of K, and to walk.
"""

from __future__ import annotations

import pytest
from kernel_cases import KernelCase, assert_agrees, capability, devices, persistent

CAPABILITY = capability() if "cuda" in devices() else 0
pytestmark = pytest.mark.skipif(CAPABILITY == 0, reason="no CUDA device, nor an emulated one")

LENGTHS = [4, 0, 3, 1, 4, 2, 4, 4, 1]


@pytest.mark.parametrize(
    ("mode", "dtype", "numbers"),
    [
        ("lstm", "float32", {"groups": 2, "backward_row_tiles": 1}),
        ("lstm", "float16", {"groups": 2, "backward_row_tiles": 1}),
        ("gru", "float32", {"groups": 1, "backward_row_tiles": 1}),
        ("gru", "float16", {"groups": 1, "backward_row_tiles": 1}),
        ("lstm", "float32", {"groups": 1, "directions": 2, "backward_row_tiles": 2}),
        ("gru", "float32", {"groups": 1, "directions": 1, "backward_row_tiles": 4}),
        ("lstm", "float16", {"directions": 2, "backward_row_tiles": 4, "batch_tiles": 2}),
        ("rnn_tanh", "float32", {"groups": 2, "directions": 2, "backward_row_tiles": 2}),
        ("rnn_tanh", "float16", {"groups": 2, "directions": 2, "backward_row_tiles": 2}),
    ],
)
def test_parts(mode, numbers, dtype):
    algorithm = persistent(**{"batch_tiles": 1, "cluster": 0, "tagged": 0, **numbers})
    case = KernelCase(
        mode, 4, 9, 3, 40, 2, device="cuda", dtype=dtype, lengths=LENGTHS, algorithm=algorithm
    )
    assert_agrees(case)


@pytest.mark.skipif(CAPABILITY < 80, reason="no TF32 before compute capability 8.0")
@pytest.mark.parametrize(
    ("mode", "dtype"), [("lstm", "float16"), ("gru", "float32"), ("rnn_tanh", "bfloat16")]
)
def test_tagged_words(mode, dtype):
    algorithm = persistent(batch_tiles=1, cluster=0, tagged=1, groups=1)
    options = {"dtype": dtype, "tf32": True, "lengths": LENGTHS, "algorithm": algorithm}
    case = KernelCase(mode, 4, 9, 3, 40, device="cuda", **options)
    assert_agrees(case, "tf32" if dtype == "float32" else None)


@pytest.mark.skipif(CAPABILITY < 90, reason="no clusters before compute capability 9.0")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("mode", ["lstm", "gru"])
def test_clusters(mode, dtype):
    # Backward, four blocks add up.
    algorithm = persistent(batch_tiles=2, cluster=1, backward_row_tiles=4, split=4)
    options = {"dtype": dtype, "tf32": True, "lengths": LENGTHS, "algorithm": algorithm}
    case = KernelCase(mode, 4, 9, 3, 90, device="cuda", **options)
    assert_agrees(case, "tf32" if dtype == "float32" else None)


@pytest.mark.parametrize(
    ("mode", "dtype", "batch_tiles"),
    [
        ("lstm", "float32", 1),  # in float32 all slices are streamed, none is in registers
        ("rnn_tanh", "float32", 4),
        ("rnn_tanh", "float16", 4),  # nor is it in float16 with so many sums
    ],
)
def test_streams(mode, dtype, batch_tiles):
    algorithm = persistent(shared_slices=0, cluster=0, batch_tiles=batch_tiles)
    case = KernelCase(mode, 3, 9, 3, 40, device="cuda", dtype=dtype, algorithm=algorithm)
    assert_agrees(case)
