"""fastrnn.kernels against the oracle, and what it says to bad input."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
import reference as ref
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("fastrnn._C", reason="installed without the native library")

from fastrnn import kernels

SIZES = st.integers(1, 19)


class Case:
    """Random arguments of one layer, in float32, and the gradients of its results."""

    def __init__(self, mode, steps, rows, inputs, hidden, directions, seed=0):
        rng = np.random.RandomState(seed)

        def draw(*shape):
            return rng.standard_normal(shape).astype(np.float32)

        self.mode = mode
        self.x = draw(steps, rows, inputs)
        self.h_0 = draw(directions, rows, hidden)
        self.c_0 = draw(directions, rows, hidden) if mode == "lstm" else None
        per_direction = ref.random_stack(rng, mode, inputs, hidden, directions=directions)
        self.weights = [w.astype(np.float32) for d in per_direction for w in d if w is not None]
        self.d_output = draw(steps, rows, directions * hidden)
        self.d_h_n = draw(directions, rows, hidden)
        self.d_c_n = draw(directions, rows, hidden) if mode == "lstm" else None

    def forward(self, **kwargs):
        return kernels.forward(self.mode, self.x, self.weights, self.h_0, self.c_0, **kwargs)

    def reference(self):
        directions = len(self.weights) // 4
        stack = [ref.Weights(*self.weights[4 * d : 4 * d + 4]) for d in range(directions)]
        result = ref.stack_forward(
            self.mode, self.x, self.h_0, self.c_0, stack, directions=directions
        )
        return result, ref.stack_backward(result, self.d_output, self.d_h_n, self.d_c_n)


def assert_agrees(case):
    result = case.forward(reserve=True)
    gradients = kernels.backward(result.reserve, case.d_output, case.d_h_n, case.d_c_n)
    expected, expected_gradients = case.reference()
    ref.assert_close(result.output, expected.output, "output")
    ref.assert_close(result.h_n, expected.h, "h_n")
    ref.assert_close(gradients.x, expected_gradients.x, "x")
    ref.assert_close(gradients.h_0, expected_gradients.h0, "h_0")
    if case.mode == "lstm":
        ref.assert_close(result.c_n, expected.c, "c_n")
        ref.assert_close(gradients.c_0, expected_gradients.c0, "c_0")
    flat = [w for d in expected_gradients.weights for w in d if w is not None]
    for i, (actual, wanted) in enumerate(zip(gradients.weights, flat)):
        ref.assert_close(actual, wanted, f"weights[{i}]")
    inference = case.forward()
    for kept, free in zip(result[:3], inference[:3]):
        assert kept is None or np.array_equal(kept, free)
    assert inference.reserve is None


@given(
    mode=st.sampled_from(ref.MODES),
    steps=SIZES,
    rows=SIZES,
    inputs=SIZES,
    hidden=st.integers(1, 40),
    directions=st.sampled_from((1, 2)),
    seed=st.integers(0, 2**16),
)
@example("lstm", 1, 1, 1, 1, 1, 0)
@example("gru", 3, 1, 33, 129, 2, 1)  # below the least number of steps that packing pays for
@settings(deadline=None, max_examples=60)
def test_agrees_with_the_reference(mode, steps, rows, inputs, hidden, directions, seed):
    assert_agrees(Case(mode, steps, rows, inputs, hidden, directions, seed))


@pytest.mark.parametrize("mode", ref.MODES)
def test_agrees_where_time_is_cut_into_chunks(mode):
    # 2100 rows are two chunks, of which the second is shorter.
    assert_agrees(Case(mode, steps=21, rows=100, inputs=3, hidden=6, directions=2))


@pytest.mark.parametrize("mode", ref.MODES)
def test_agrees_where_units_are_shared_among_threads(mode):
    assert_agrees(Case(mode, steps=4, rows=9, inputs=5, hidden=1030, directions=1))


@pytest.mark.parametrize("mode", ref.MODES)
def test_states_are_zero_by_default(mode):
    case = Case(mode, 5, 3, 2, 7, 2)
    case.h_0[:] = 0
    case.d_h_n[:] = 0
    if mode == "lstm":
        case.c_0[:] = 0
        case.d_c_n[:] = 0
    given_states = case.forward(reserve=True)
    result = kernels.forward(mode, case.x, case.weights, reserve=True)
    assert np.array_equal(result.output, given_states.output)
    gradients = kernels.backward(result.reserve, case.d_output)
    wanted = kernels.backward(given_states.reserve, case.d_output, case.d_h_n, case.d_c_n)
    assert np.array_equal(gradients.h_0, wanted.h_0)


def test_tiny_values():
    case = Case("lstm", 4, 3, 2, 5, 1)
    case.x *= np.float32(1e-6)
    assert_agrees(case)


@pytest.mark.parametrize("mode", ref.MODES)
def test_saturated_gates(mode):
    # The gradients are then differences of numbers that float32 rounds to the same.
    case = Case(mode, 4, 3, 2, 5, 1)
    case.x *= np.float32(1e4)
    result = case.forward(reserve=True)
    ref.assert_close(result.output, case.reference()[0].output, "output")
    gradients = kernels.backward(result.reserve, case.d_output)
    assert all(np.isfinite(w).all() for w in gradients.weights)


@pytest.mark.parametrize("mode", ref.MODES)
def test_nan_stays_nan(mode):
    case = Case(mode, 3, 2, 2, 4, 1)
    case.x[1, 0] = np.nan
    output = case.forward().output
    assert np.isnan(output[1:, 0]).all()
    assert not np.isnan(output[:, 1]).any()


def test_same_inputs_give_the_same_bits():
    case = Case("gru", 30, 33, 65, 70, 2)
    first, second = case.forward(reserve=True), case.forward(reserve=True)
    assert np.array_equal(first.output, second.output)
    gradients = [kernels.backward(r.reserve, case.d_output) for r in (first, second)]
    for a, b in zip(gradients[0].weights, gradients[1].weights):
        assert np.array_equal(a, b)


def test_reserve_is_within_its_bound():
    for mode in ref.MODES:
        case = Case(mode, 5, 3, 2, 7, 2)
        bound = 2 * 5 * 3 * (ref.GATES[mode] + 1) * 7
        assert case.forward(reserve=True).reserve.values.size <= bound, mode


class Dlpack:
    """An array whose only face is DLPack."""

    def __init__(self, array):
        self.shape = array.shape
        self.__dict__[self.method] = array.__dlpack__

    method = "__dlpack__"


class MxnetLike(Dlpack):
    """An array with MXNet's name for the same thing."""

    method = "to_dlpack_for_read"


@pytest.mark.host_arrays
@pytest.mark.skipif(not hasattr(np.ndarray, "__dlpack__"), reason="NumPy without DLPack")
def test_takes_arrays_of_other_libraries():
    case = Case("lstm", 4, 3, 2, 5, 1)
    expected = case.forward().output
    for wrap in (Dlpack, MxnetLike):
        weights = [wrap(w) for w in case.weights]
        result = kernels.forward(
            "lstm", wrap(case.x), weights, wrap(case.h_0), wrap(case.c_0), reserve=True
        )
        assert np.array_equal(result.output, expected)
        kernels.backward(result.reserve, wrap(case.d_output))


def test_takes_read_only_arrays():
    case = Case("gru", 4, 3, 2, 5, 1)
    expected = case.forward().output
    case.x.setflags(write=False)
    assert np.array_equal(case.forward().output, expected)


class Sparse:
    stype = "row_sparse"

    def to_dlpack_for_read(self):
        raise AssertionError("MXNet hands over the stored rows alone")


class Unwilling:
    def __dlpack__(self):
        raise BufferError("not today")


class Consumed:
    def to_dlpack_for_read(self):
        capsule_of = ctypes.pythonapi.PyCapsule_New
        capsule_of.restype = ctypes.py_object
        capsule_of.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
        return capsule_of(1, b"used_dltensor", None)


def packed_field(shape):
    """Return a field of packed records: as strided, in whole floats, as a dense array."""
    record = np.zeros(shape, np.dtype([("value", "f4"), ("flag", "u1")]))
    return record["value"]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"mode": "lstmp"}, "mode is 'lstmp', expected lstm"),
        ({"x": np.zeros((2, 3), "f4")}, r"x is of shape \(2, 3\), expected 3 dimensions"),
        ({"x": np.zeros((4, 3, 2))}, "x is of dtype float64, expected float32"),
        ({"x": np.zeros((4, 3, 4), "f4")[:, :, ::2]}, "x is strided"),
        ({"x": packed_field((4, 3, 1))}, "x is strided, expected a dense"),
        ({"x": Sparse()}, "x is sparse, expected a dense"),
        ({"x": Unwilling()}, r"x\.__dlpack__\(\) failed: not today"),
        ({"c_0": Consumed()}, r"c_0\.to_dlpack_for_read\(\) is a DLPack capsule that somebody"),
        ({"x": np.zeros((0, 3, 2), "f4")}, "sequence length is 0"),
        (
            {"h_0": np.zeros((1, 4, 5), "f4")},
            r"h_0 is of shape \(1, 4, 5\), expected.*1, 3, 5",
        ),
        ({"h_0": np.zeros((3, 3, 5), "f4")}, r"h_0 is of shape \(3, 3, 5\), expected .*1, 3, 5"),
        ({"c_0": np.zeros((1, 3, 6), "f4")}, r"c_0 is of shape \(1, 3, 6\)"),
        ({"weights": []}, "weights has 0 arrays, expected 4 or 8"),
        ({"weights": [np.zeros((2, 2), "f4")] * 12}, "weights has 12 arrays, expected 4 or 8"),
    ],
)
def test_bad_input_is_named(change, message):
    case = Case("lstm", 4, 3, 2, 5, 1)
    arguments = {"mode": "lstm", "x": case.x, "weights": case.weights, "h_0": case.h_0}
    arguments["c_0"] = case.c_0
    arguments.update(change)
    with pytest.raises(ValueError, match=message):
        kernels.forward(**arguments)


@pytest.mark.parametrize("states", [True, False], ids=["states", "no-states"])
@pytest.mark.parametrize(
    "change, message",
    [
        ({"mode": None}, "mode is of type NoneType, expected a string"),
        ({"x": None}, "x is of type NoneType, expected a NumPy array or"),
        ({"x": [[[1.0]]]}, "x is of type list"),
        ({"weights": None}, "weights is of type NoneType, expected a sequence of arrays"),
        ({"weights": [None] * 4}, r"weights\[0\] \(i2h_weight\) is of type NoneType"),
    ],
)
def test_arguments_that_are_no_arrays_are_named(change, message, states):
    case = Case("lstm", 4, 3, 2, 5, 1)
    arguments = {"mode": "lstm", "x": case.x, "weights": case.weights}
    if states:
        arguments.update(h_0=case.h_0, c_0=case.c_0)
    with pytest.raises(TypeError, match=message):
        kernels.forward(**{**arguments, **change})


def test_bad_weights_states_and_reserves_are_named():
    case = Case("lstm", 4, 3, 2, 5, 1)
    wrong = list(case.weights)
    wrong[1] = wrong[1][:-1]
    with pytest.raises(ValueError, match=r"weights\[1\] \(h2h_weight\) is of shape \(19, 5\)"):
        kernels.forward("lstm", case.x, wrong, case.h_0, case.c_0)
    with pytest.raises(TypeError, match="h_0 is of type list"):
        kernels.forward("lstm", case.x, case.weights, [1.0], case.c_0)
    with pytest.raises(ValueError, match="weights has 3 arrays"):
        kernels.forward("lstm", case.x, case.weights[:3])
    with pytest.raises(ValueError, match=r"x is of shape \(3, 2\), expected 3 dimensions"):
        kernels.forward("lstm", case.x[0], case.weights)
    wrong[1] = wrong[1][0]
    with pytest.raises(ValueError, match=r"weights\[1\] \(h2h_weight\) is of shape \(5,\)"):
        kernels.forward("lstm", case.x, wrong)
    gru = Case("gru", 4, 3, 2, 5, 1)
    with pytest.raises(ValueError, match="only an lstm has a cell state"):
        kernels.forward("gru", gru.x, gru.weights, gru.h_0, case.c_0)
    result = gru.forward(reserve=True)
    with pytest.raises(ValueError, match="d_c_n was given, but only an lstm"):
        kernels.backward(result.reserve, gru.d_output, None, case.c_0)
    with pytest.raises(ValueError, match=r"d_output is of shape \(1, 3, 5\)"):
        kernels.backward(result.reserve, gru.d_output[:1])
    with pytest.raises(ValueError, match=r"d_h_n is of shape \(3, 5\), expected shape \(1, 3, 5\)"):
        kernels.backward(result.reserve, gru.d_output, gru.d_h_n[0])
    with pytest.raises(TypeError, match="reserve is of type NoneType"):
        kernels.backward(gru.forward().reserve, gru.d_output)
