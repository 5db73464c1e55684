"""The rows of the quick part and of the full grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench import cases
from bench.cases import Case


@pytest.mark.parametrize("device, quick, full", [("cpu", 21, 109), ("cuda", 17, 145)])
def test_the_quick_part_comes_first_and_no_row_is_twice(device, quick, full):
    grid = cases.grid(device, full=True)
    assert len({case.name for case in grid}) == len(grid) == full
    assert grid[:quick] == cases.grid(device)


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
    assert any(c.cell == "gru" and c.ragged for c in grid)
    assert grid[0] == replace(cases.TUTORIAL, tf32=True)


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
        ({"cell": "gru", "neighbour": "loud"}, "neighbour is 'loud', expected one of"),
        ({"cell": "gru", "tf32": True, "dtype": "float16"}, "tf32 is True for float16"),
    ],
)
def test_a_case_that_is_none(options, said):
    with pytest.raises(ValueError, match=said):
        Case(**options)
