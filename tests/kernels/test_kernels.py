"""fastrnn.kernels against the oracle, and what it says to bad input."""

from __future__ import annotations

import ctypes
import os

import numpy as np
import pytest
import reference as ref
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("fastrnn._C", reason="installed without the native library")

from kernel_cases import PRECISE, KernelCase, assert_agrees, devices

from fastrnn import kernels

SIZES = st.integers(1, 19)


@pytest.fixture(params=devices())
def device(request):
    return request.param


@given(
    mode=st.sampled_from(ref.MODES),
    steps=SIZES,
    rows=SIZES,
    inputs=SIZES,
    hidden=st.integers(2, 40),  # an array of one sum that cancels would have to be exact
    directions=st.sampled_from((1, 2)),
    seed=st.integers(0, 2**16),
)
@example(mode="lstm", steps=1, rows=1, inputs=1, hidden=1, directions=1, seed=0)
@example(
    mode="gru", steps=3, rows=1, inputs=33, hidden=129, directions=2, seed=1
)  # below the least number of steps that packing pays for
@settings(deadline=None, max_examples=60)
@pytest.mark.parametrize(("device", "dtype"), PRECISE)
def test_agrees_with_the_reference(
    device, dtype, mode, steps, rows, inputs, hidden, directions, seed
):
    assert_agrees(KernelCase(mode, steps, rows, inputs, hidden, directions, seed, device, dtype))


@pytest.mark.parametrize(("device", "dtype"), PRECISE)
@pytest.mark.parametrize("mode", ref.MODES)
def test_agrees_where_time_is_cut_into_chunks(mode, device, dtype):
    # 2100 rows are two chunks, of which the second is shorter.
    assert_agrees(KernelCase(mode, 21, 100, 3, 6, directions=2, device=device, dtype=dtype))


@pytest.mark.parametrize(("device", "dtype"), PRECISE)
@pytest.mark.parametrize("mode", ref.MODES)
def test_agrees_where_units_are_shared_among_threads(mode, device, dtype):
    assert_agrees(KernelCase(mode, 4, 9, 5, 1030, device=device, dtype=dtype))


@pytest.mark.skipif("cpu" not in devices(), reason="no kernels for the CPU")
@pytest.mark.parametrize("units", [128, 512])
def test_weight_gradients_of_many_rows_that_share_sets_of_the_cache(units):
    # Of 128 units, and of 16 inputs, they are summed from copies; of 512 units not with AVX2.
    assert_agrees(KernelCase("lstm", 3, 40, 16, units))


@pytest.mark.parametrize("mode", ref.MODES)
def test_states_are_zero_by_default(mode, device):
    case = KernelCase(mode, 5, 3, 2, 7, 2, device=device)
    case.h_0[:] = 0
    case.d_h_n[:] = 0
    if mode == "lstm":
        case.c_0[:] = 0
        case.d_c_n[:] = 0
    given_states = case.forward(reserve=True)
    result = case.forward(h_0=None, c_0=None, reserve=True)
    assert np.array_equal(result.output, given_states.output)
    gradients = case.backward(result.reserve, case.d_output)
    wanted = case.backward(given_states.reserve)
    assert np.array_equal(gradients.h_0, wanted.h_0)


def test_tiny_values(device):
    case = KernelCase("lstm", 4, 3, 2, 5, device=device)
    case.x *= np.float32(1e-6)
    assert_agrees(case)


@pytest.mark.parametrize("mode", ref.MODES)
def test_saturated_gates(mode, device):
    # The gradients are then differences of numbers that float32 rounds to the same.
    case = KernelCase(mode, 4, 3, 2, 5, device=device)
    case.x *= np.float32(1e4)
    result = case.forward(reserve=True)
    ref.assert_close(result.output, case.reference()[0].output, "output")
    gradients = case.backward(result.reserve, case.d_output)
    assert all(np.isfinite(w).all() for w in gradients.weights)


@pytest.mark.parametrize("mode", ref.MODES)
def test_nan_stays_nan(mode, device):
    case = KernelCase(mode, 3, 2, 2, 4, device=device)
    case.x[1, 0] = np.nan
    output = case.forward().output
    assert np.isnan(output[1:, 0]).all()
    assert not np.isnan(output[:, 1]).any()


def test_same_inputs_give_the_same_bits(device):
    case = KernelCase("gru", 30, 33, 65, 70, 2, device=device)
    first, second = case.forward(reserve=True), case.forward(reserve=True)
    assert np.array_equal(first.output, second.output)
    gradients = [case.backward(r.reserve, case.d_output) for r in (first, second)]
    for a, b in zip(gradients[0].weights, gradients[1].weights):
        assert np.array_equal(a, b)


def test_reserve_is_within_its_bound(device):
    for mode in ref.MODES:
        case = KernelCase(mode, 5, 3, 2, 7, 2, device=device)
        bound = 2 * 5 * 3 * (ref.GATES[mode] + 1) * 7
        (values,) = case.forward(reserve=True).reserve.values.shape
        assert values <= bound, mode


class Dlpack:
    """An array whose only face is DLPack."""

    def __init__(self, array):
        self.shape = array.shape
        self.__dict__[self.method] = array.__dlpack__

    method = "__dlpack__"


class MxnetLike(Dlpack):
    """An array with MXNet's name for the same thing."""

    method = "to_dlpack_for_read"


ON_THE_CPU = pytest.mark.skipif("cpu" not in devices(), reason="a build without CPU kernels")


@ON_THE_CPU
@pytest.mark.skipif(not hasattr(np.ndarray, "__dlpack__"), reason="NumPy without DLPack")
def test_takes_arrays_of_other_libraries():
    case = KernelCase("lstm", 4, 3, 2, 5, 1)
    expected = case.forward().output
    for wrap in (Dlpack, MxnetLike):
        weights = [wrap(w) for w in case.weights]
        result = kernels.forward(
            "lstm", wrap(case.x), weights, wrap(case.h_0), wrap(case.c_0), reserve=True
        )
        assert np.array_equal(result.output, expected)
        kernels.backward(result.reserve, wrap(case.d_output))


@ON_THE_CPU
@pytest.mark.skipif(not hasattr(np.ndarray, "__dlpack__"), reason="NumPy without DLPack")
@pytest.mark.parametrize(
    "x, message",
    [
        (np.zeros((4, 3, 4), "f4")[:, :, ::2], "x is strided, expected a dense, row-major array"),
        (np.zeros((2, 3, 4), "f4").T, "x is strided"),
        (np.zeros(97, "u1")[1:].view("f4").reshape(4, 3, 2), "x is not aligned, expected alignm"),
        (np.zeros((4, 3, 2), "i4"), "x is of dtype int32, expected float32"),
        (np.zeros((4, 0, 2), "f4"), "batch size is 0, expected 1 or more"),
    ],
)
def test_arrays_of_other_libraries_that_are_none_for_the_kernels_are_named(x, message):
    case = KernelCase("lstm", 4, 3, 2, 5, 1)
    with pytest.raises(ValueError, match=message):
        kernels.forward("lstm", Dlpack(x), case.weights)


@ON_THE_CPU
def test_takes_read_only_arrays():
    case = KernelCase("gru", 4, 3, 2, 5, 1)
    expected = case.forward().output
    case.x.setflags(write=False)
    assert np.array_equal(case.forward().output, expected)


# Bad input on the host; test_device_arrays.py has that on a GPU.


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


def misaligned(shape):
    """Return a dense array of float32 whose address is odd."""
    return np.zeros(4 * int(np.prod(shape)) + 1, np.uint8)[1:].view(np.float32).reshape(shape)


@ON_THE_CPU
@pytest.mark.parametrize(
    "change, message",
    [
        ({"x": misaligned((4, 3, 2))}, "x is not aligned, expected alignment to its values' size"),
        ({"mode": "lstmp"}, "mode is 'lstmp', expected lstm"),
        ({"x": np.zeros((2, 3), "f4")}, r"x is of shape \(2, 3\), expected 3 dimensions"),
        ({"x": np.zeros((4, 3, 2))}, r"weights\[0\] .* is of dtype float32, expected float64"),
        ({"x": np.zeros((4, 3, 4), "f4")[:, :, ::2]}, "x is strided"),
        ({"x": packed_field((4, 3, 1))}, "x is strided, expected a dense"),
        ({"x": np.zeros((4, 3, 2), "f4").astype(">f4")}, "x is of dtype >f4, expected float32"),
        ({"x": np.zeros((4, 3, 2), [])}, r"x is of dtype \[\], expected a type of numbers"),
        ({"x": Sparse()}, "x is sparse, expected a dense"),
        ({"x": Unwilling()}, r"x\.__dlpack__\(\) failed: not today"),
        ({"c_0": Consumed()}, r"c_0\.to_dlpack_for_read\(\) is a DLPack capsule that has been"),
        ({"x": np.zeros((0, 3, 2), "f4")}, "sequence length is 0"),
        (
            {"h_0": np.zeros((1, 4, 5), "f4")},
            r"h_0 is of shape \(1, 4, 5\), expected.*1, 3, 5",
        ),
        ({"h_0": np.zeros((3, 3, 5), "f4")}, r"h_0 is of shape \(3, 3, 5\), expected .*1, 3, 5"),
        ({"c_0": np.zeros((1, 3, 6), "f4")}, r"c_0 is of shape \(1, 3, 6\)"),
        ({"weights": []}, "weights has 0 arrays, expected 4 or 8"),
        ({"weights": [np.zeros((2, 2), "f4")] * 12}, "weights has 12 arrays, expected 4 or 8"),
        ({"stream": 7}, "stream was given, but x is on the CPU"),
        ({"lengths": np.zeros(3, "i8")}, "lengths is of dtype int64, expected int32"),
        ({"lengths": np.zeros(4, "i4")}, r"lengths is of shape \(4,\), expected shape \(3,\)"),
    ],
)
def test_bad_input_is_named(change, message):
    case = KernelCase("lstm", 4, 3, 2, 5, 1)
    arguments = {"mode": "lstm", "x": case.x, "weights": case.weights, "h_0": case.h_0}
    arguments["c_0"] = case.c_0
    arguments.update(change)
    with pytest.raises(ValueError, match=message):
        kernels.forward(**arguments)


@ON_THE_CPU
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
    case = KernelCase("lstm", 4, 3, 2, 5, 1)
    arguments = {"mode": "lstm", "x": case.x, "weights": case.weights}
    if states:
        arguments.update(h_0=case.h_0, c_0=case.c_0)
    with pytest.raises(TypeError, match=message):
        kernels.forward(**{**arguments, **change})


@ON_THE_CPU
def test_bad_weights_states_and_reserves_are_named():
    case = KernelCase("lstm", 4, 3, 2, 5, 1)
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
    gru = KernelCase("gru", 4, 3, 2, 5, 1)
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


def test_a_call_may_have_fewer_threads():
    from fastrnn import _native, _threads

    if "cpu" not in devices():
        pytest.skip("no kernels on the CPU")
    if "OMP_NUM_THREADS" not in os.environ and _threads.physical_cores() < 2:
        pytest.skip("a call has one thread anyway")
    case = KernelCase("gru", 5, 33, 7, 47)
    before = _native.library().plans_made()
    results = [
        kernels.forward("gru", case.x, case.weights, threads=threads) for threads in (1, None, 99)
    ]
    assert _native.library().plans_made() - before == 2  # for one thread, and for all
    for result in results:
        np.testing.assert_allclose(result.output, results[0].output, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="threads is 0, expected 1 or more"):
        kernels.forward("gru", case.x, case.weights, threads=0)


def test_arrays_may_be_capsules():
    if "cpu" not in devices():
        pytest.skip("no kernels on the CPU")
    case = KernelCase("gru", 5, 3, 7, 9)
    capsules = [weight.__dlpack__() for weight in case.weights]
    found = kernels.forward("gru", case.x.__dlpack__(), capsules)
    expected = kernels.forward("gru", case.x, case.weights)
    np.testing.assert_array_equal(found.output, expected.output)
