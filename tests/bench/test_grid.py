"""Cases and limits: plain data and arithmetic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import sources  # noqa: F401

from bench import cases
from bench.cases import Case
from bench.limits import Peaks, cold_bytes, exchanges, flops, least_bytes, limit, set_bytes

PEAKS = Peaks(1e12, 1e11, 1e-6, 0)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_no_name_is_twice(device, full):
    names = [case.name for case in cases.grid(device, full)]
    assert len(set(names)) == len(names)


def test_the_full_grid_has_every_size_and_option():
    grid = cases.grid("cuda", full=True)
    assert {c.hidden for c in grid} >= set(cases.HIDDEN)
    assert {c.batch for c in grid} >= set(cases.BATCHES)
    assert {c.steps for c in grid} >= set(cases.STEPS)
    for train in (True, False):
        kinds = {(c.cell, c.dtype, c.tf32) for c in grid if c.train == train and c.layers == 2}
        assert {cell for cell, _, _ in kinds} == set(cases.CELLS)
        assert {("lstm", "float32", True), ("lstm", "float16", False)} < kinds
        assert {("lstm", "float32", False), ("lstm", "bfloat16", False)} < kinds
    assert {c.layers for c in grid} == {1, 2}
    assert {c.bidirectional for c in grid} == {c.ragged for c in grid} == {True, False}
    assert {c.task for c in grid} == set(cases.TASKS)
    assert set(cases.grid("cuda")) < set(grid)
    assert set(cases.grid("cpu")) < set(cases.grid("cpu", full=True))


def test_lengths_fall_from_all_steps():
    lengths = Case("gru", batch=5, steps=8, ragged=True).lengths()
    assert lengths.dtype == np.int32
    assert lengths.tolist() == [8, 6, 5, 4, 2]
    assert Case("gru", batch=2, steps=8).lengths().tolist() == [8, 8]


@pytest.mark.parametrize(
    "options, said",
    [
        ({"cell": "elman"}, "cell is 'elman', expected one of lstm"),
        ({"cell": "gru", "task": "nap"}, "task is 'nap', expected one of layer"),
        ({"cell": "gru", "tf32": True, "dtype": "float16"}, "tf32 is True for float16"),
    ],
)
def test_a_case_that_is_none(options, said):
    with pytest.raises(ValueError, match=said):
        Case(**options)


def test_the_full_grid_is_small_enough_for_half_an_hour():
    for device in ("cpu", "cuda"):
        sizes = [len(cases.grid(device, full)) for full in (False, True)]
        print(f"{device}: {sizes[0]} rows in the quick part, {sizes[1]} in the full grid")
    assert sizes[1] <= 150


def test_the_most_important_rows_come_first():
    grid = cases.grid("cuda", full=True)
    assert grid[0] == replace(cases.TUTORIAL, tf32=True)
    assert grid[: len(cases.grid("cuda"))] == cases.grid("cuda")
    # What is refused at the least width is not asked for at the others, which come later.
    first = {}
    for place, case in enumerate(grid):
        first.setdefault(replace(case, hidden=0), []).append((case.hidden, place))
    walks = [walk for walk in first.values() if min(walk)[0] == 128 and len(walk) > 3]
    assert len(walks) > 10
    for walk in walks:
        places = dict(walk)
        later = [h for h, place in walk if place > places[128]]
        assert len(later) >= len(walk) - 2  # 1000 alone is an anchor's


@pytest.mark.parametrize("dtype, tf32", [("float32", True), ("float16", False)])
def test_the_batch_and_the_length_are_walked_in_both_arithmetics(dtype, tf32):
    of_type = [
        c
        for c in cases.grid("cuda", full=True)
        if (c.cell, c.dtype, c.tf32, c.hidden, c.inputs) == ("lstm", dtype, tf32, 1000, 50)
    ]
    assert {c.batch for c in of_type if c.train and c.steps == 100} == set(cases.BATCHES)
    assert {c.steps for c in of_type if c.train and c.batch == 32} == set(cases.STEPS)
    assert {c.steps for c in of_type if not c.train and c.batch == 1} == set(cases.STEPS)
    assert any(c.ragged for c in of_type)


def test_more_of_what_decides():
    grid = cases.grid("cuda", full=True)
    assert any(c.cell == "gru" and c.ragged for c in grid)
    for dtype in ("float16", "bfloat16"):
        widths = {c.hidden for c in grid if not c.train and c.dtype == dtype and c.layers == 2}
        assert widths >= set(cases.SOME_WIDTHS)
    quick = [c for c in cases.grid("cuda") if c.dtype == "float32" and not c.train]
    assert quick
    assert all(c.tf32 for c in quick)  # which is the default


def test_limits_are_counted_by_hand():
    case = Case("lstm", layers=1, inputs=2, hidden=3, batch=5, steps=7, train=False)
    of_input, recurrent = 12 * 2, 12 * 3
    # Initial states are zero: six of seven steps have a recurrent product.
    assert flops(case) == 2 * 5 * (of_input * 7 + recurrent * 6)
    assert set_bytes(case) == 4 * 35 * 2
    same = of_input + recurrent + 35 * 3
    assert least_bytes(case, 1, 0) == 4 * (35 * 2 + same)
    assert least_bytes(case, 2, 100) == (4 * (2 * 35 * 2 + same) - 100) / 2
    assert least_bytes(case, 2, 1 << 20) == 0
    one_step = replace(case, steps=1)
    assert flops(one_step) == 2 * 5 * of_input
    assert least_bytes(one_step, 1, 0) == 4 * (5 * 2 + of_input + 5 * 3)
    two = replace(case, layers=2, bidirectional=True, train=True, dtype="float16")
    of_input, recurrent = 24 * 2 + 24 * 6, 2 * 24 * 3
    assert flops(two) == 3 * 2 * 5 * (of_input * 7 + recurrent * 6)
    assert set_bytes(two) == 2 * 35 * (2 + 6)
    same = 2 * (of_input + recurrent) + 35 * 6 + 35 * 2
    assert least_bytes(two, 1, 0) == 2 * (35 * 8 + same)
    read = 2 * (of_input + recurrent + 35 * 8)
    computed = 2 * (of_input + recurrent + 35 * 6 + 35 * 2)
    assert cold_bytes(two, 0) == read + computed
    assert cold_bytes(two, 100) == read + computed - 100
    assert cold_bytes(two, 1 << 20) == read
    # In a language model, layers of the same call compute the input and the output's gradient.
    model = replace(two, bidirectional=False, task="lm training")
    of_input, recurrent = 12 * 2 + 12 * 3, 2 * 12 * 3
    assert cold_bytes(model, 0) == 2 * (2 * (of_input + recurrent) + 35 * 2 * (2 + 3))
    assert cold_bytes(model, 1 << 20) == 2 * (of_input + recurrent)
    ragged = replace(case, ragged=True)
    assert flops(ragged) < flops(case)


@pytest.mark.parametrize(
    "options, count",
    [
        ({"steps": 1, "layers": 1}, 0),
        ({"steps": 7, "layers": 1}, 6),
        ({"steps": 7, "layers": 2}, 7),
        ({"steps": 7, "layers": 1, "bidirectional": True}, 6),
        ({"steps": 7, "layers": 2, "bidirectional": True}, 13),
        ({"steps": 7, "layers": 2, "train": True}, 14),
    ],
)
def test_the_chain_of_exchanges(options, count):
    assert exchanges(Case("gru", **{"train": False, **options})) == count


def test_the_largest_bound_is_the_limit():
    case = Case("lstm")
    assert limit(case, PEAKS, 2) == (flops(case) / 1e12, "math")
    least = least_bytes(case, 2, 0)
    assert limit(case, PEAKS._replace(bandwidth=1.0), 2) == (least, "memory")
    assert limit(case, PEAKS._replace(bandwidth=1.0, cache=1 << 40), 2).bound == "math"
    cold = cold_bytes(case, 1 << 20)
    assert limit(case, PEAKS._replace(bandwidth=1.0, cache=1 << 20), None) == (cold, "memory")
    assert limit(case, PEAKS._replace(exchange=1.0), 2) == (200.0, "exchange")
    assert limit(case, PEAKS._replace(exchange=None), 2).bound == "math"
    with pytest.raises(ValueError, match="bandwidth is 0, expected more than 0"):
        limit(case, PEAKS._replace(bandwidth=0), 2)
