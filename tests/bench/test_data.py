"""Which results are wrong: the same ones with PyTorch, which is sooner done, and without."""

from __future__ import annotations

import numpy as np
import pytest
import sources  # noqa: F401

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


@pytest.fixture(params=["NumPy", "PyTorch"])
def compares(request, monkeypatch):
    """Who compares; parts are so small that there are some."""
    if request.param == "PyTorch":
        pytest.importorskip("torch", reason="without PyTorch")
    else:
        monkeypatch.setattr(data, "pytorch", lambda: None)
    monkeypatch.setattr(data, "COMPARED_AT_ONCE", 7)


@pytest.mark.parametrize("name", ["output", "gradient of x"])
@pytest.mark.parametrize("arrays, said", VERDICTS)
@pytest.mark.parametrize("cell", ["lstm", "rnn_relu"])
def test_what_is_wrong(cell, arrays, said, name, compares):
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


def test_pytorch_and_numpy_draw_the_line_at_the_same_place(monkeypatch):
    pytest.importorskip("torch", reason="without PyTorch")
    found = {}
    for share in np.linspace(0.9, 2.1, 200):
        actual, wanted = pair(add(share * TOLERANCE))
        both = []
        for library in (data.pytorch, lambda: None):
            with monkeypatch.context() as patch:
                patch.setattr(data, "pytorch", library)
                both.append(data.difference(Case("gru"), {"a": actual}, {"a": wanted}))
        assert both[0] == both[1]
        found[share] = both[0] is None
    assert set(found.values()) == {True, False}


def test_numpy_is_not_asked_of_what_pytorch_finds_right(monkeypatch):
    pytest.importorskip("torch", reason="without PyTorch")
    asked = []
    monkeypatch.setattr(data.reference(), "assert_close", lambda *a: asked.append(a))
    actual, wanted = pair()
    assert data.difference(Case("gru"), {"a": actual}, {"a": wanted}) is None
    assert asked == []
    actual[0, 0, 0] += 1
    data.difference(Case("gru"), {"a": actual}, {"a": wanted})
    assert len(asked) == 1
