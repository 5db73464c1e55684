"""Which results are wrong."""

from __future__ import annotations

import numpy as np
import pytest

from bench import data
from bench.cases import Case

SIZE = (5, 4, 3)


def pair(change=lambda array: array, seed=3):
    """Results of float32, changed, and the float64 ones that are wanted."""
    wanted = np.random.RandomState(seed).standard_normal(SIZE)
    return change(wanted.astype(np.float32)), wanted


def put(value, *place):
    def change(array):
        array[place] = value
        return array

    return change


def add(share):
    """Something that is as much as a share of the largest value, somewhere in the middle."""

    def change(array):
        array[2, 1, 1] += share * np.abs(array).max()
        return array

    return change


TOLERANCE = data.reference().TOLERANCE["float32"]
VERDICTS = [
    (pair(), None),
    (pair(add(TOLERANCE / 2)), None),
    (pair(add(4 * TOLERANCE)), "of its largest value away"),
    (pair(put(np.nan, 4, 3, 2)), "nan of its largest value away"),
    (pair(put(np.inf, 0, 0, 0)), "inf of its largest value away"),
    (pair(lambda array: array[:, :, :1]), "shape (5, 4, 1), expected (5, 4, 3)"),
    (pair(lambda array: array[:4]), "shape (4, 4, 3), expected (5, 4, 3)"),
    (pair(np.asfortranarray), None),
    ((np.zeros(SIZE, np.float32), np.zeros(SIZE)), None),
    ((np.full(SIZE, 1e-20, np.float32), np.zeros(SIZE)), "of its largest value away"),
    ((np.zeros((0, 3), np.float32), np.zeros((0, 3))), None),
    ((np.float32([1, np.nan]), np.array([1, 2.0])), "nan"),
    ((np.float32([1, 2]), np.array([1, np.nan])), "nan"),
]


@pytest.fixture(autouse=True)
def _several_parts(monkeypatch):
    monkeypatch.setattr(data, "COMPARED_AT_ONCE", 7)


@pytest.mark.parametrize("name", ["output", "gradient of x"])
@pytest.mark.parametrize("arrays, said", VERDICTS)
@pytest.mark.parametrize("cell", ["lstm", "rnn_relu"])
def test_what_is_wrong(cell, arrays, said, name):
    as_a_whole = cell == "rnn_relu" and name != "output"
    found = data.difference(Case(cell), {name: arrays[0]}, {name: arrays[1]})
    if as_a_whole and "shape" not in (said or ""):
        far = np.linalg.norm(arrays[0] - arrays[1])
        right = far <= data.RELU_GRADIENT_TOLERANCE * np.linalg.norm(arrays[1])
        assert (found is None) == right
    elif said is None:
        assert found is None
    else:
        assert found.startswith(f"{name}: ")
        assert said in found


def test_the_line_is_where_the_oracle_draws_it():
    found = {}
    for share in np.linspace(0.9, 2.1, 200):
        actual, wanted = pair(add(share * TOLERANCE))
        try:
            data.reference().assert_close(actual, wanted)
            right = True
        except AssertionError:
            right = False
        assert (data.difference(Case("gru"), {"a": actual}, {"a": wanted}) is None) == right
        found[share] = right
    assert set(found.values()) == {True, False}


def test_a_result_that_is_missing_is_wrong():
    actual, wanted = pair()
    found = data.difference(Case("gru"), {"a": actual}, {"a": wanted, "b": wanted})
    assert found == "results are a, expected a, b"


SMALL = {"inputs": 5, "hidden": 9, "batch": 3, "steps": 4}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_data_has_the_values_of_its_type(dtype):
    values = data.draw(Case("gru", dtype=dtype, **SMALL))
    for array in (*values.weights, *values.xs, *values.d_outputs):
        assert np.array_equal(data.rounded(array, dtype), array)
        assert not np.array_equal(data.rounded(array + 1e-5, dtype), array + 1e-5)


def test_input_sets_differ_and_gradients_of_padding_are_zero():
    case = Case("gru", ragged=True, **SMALL)
    values = data.draw(case, 3)
    for arrays in (values.xs, values.d_outputs):
        assert len(arrays) == 3
        assert not any(np.array_equal(a, arrays[0]) for a in arrays[1:])
    late = np.arange(case.steps)[:, np.newaxis] >= case.lengths()
    assert all(not d[late].any() for d in values.d_outputs)
    assert data.draw(Case("gru", train=False, **SMALL), 3).d_outputs == []
