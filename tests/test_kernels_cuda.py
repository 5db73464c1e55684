"""What the CUDA kernels have and the CPU's do not: 16-bit types, TF32 and lengths.

Runs where fastrnn._C is a build on the emulator, whose device memory is NumPy's, and on a GPU with
tests/gpu/cuda_arrays.py.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import reference as ref

if "FASTRNN_EMULATED_LIBRARY" not in os.environ and "emulated" not in sys.modules:
    pytest.skip("needs a build on the emulator or a GPU", allow_module_level=True)

import emulated

DTYPES = ("float32", "float16", "bfloat16")
# T, N, I, H: ones, odd numbers, more than one block of units, and chunks of time.
SIZES = [(1, 1, 1, 1), (3, 2, 7, 33), (2, 1, 3, 129), (7, 33, 5, 7)]


def encode(array, dtype):
    """Round to an array as the kernels take it; bfloat16 is the upper half of a float32."""
    if array is None or dtype != "bfloat16":
        return None if array is None else array.astype(dtype)
    bits = array.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def decode(array):
    """Back to float64."""
    if array is None or array.dtype != np.uint16:
        return None if array is None else array.astype(np.float64)
    return (array.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


class Case:
    """Random arguments of a layer, as the kernels take them, and what the oracle says."""

    def __init__(self, mode, dtype, sizes, directions, lengths=None, seed=0):
        steps, rows, inputs, hidden = sizes
        rng = np.random.RandomState(seed)

        def draw(*shape):
            return encode(rng.standard_normal(shape), dtype)

        self.mode, self.dtype, self.directions = mode, dtype, directions
        self.lengths = None if lengths is None else np.resize(lengths, rows).astype(np.int32)
        self.x = draw(steps, rows, inputs)
        self.h_0 = draw(directions, rows, hidden)
        self.c_0 = draw(directions, rows, hidden) if mode == "lstm" else None
        stack = ref.random_stack(rng, mode, inputs, hidden, directions=directions)
        self.weights = [encode(w, dtype) for d in stack for w in d if w is not None]
        self.d_output = draw(steps, rows, directions * hidden)
        self.d_h_n = draw(directions, rows, hidden)
        self.d_c_n = draw(directions, rows, hidden) if mode == "lstm" else None

    def forward(self, **options):
        options = {"lengths": self.lengths, "tf32": False, **options}
        return emulated.forward(self.mode, self.x, self.weights, self.h_0, self.c_0, **options)

    def backward(self, result):
        return emulated.backward(result.reserve, self.d_output, self.d_h_n, self.d_c_n)

    def padding(self):
        """Return which places of [T, N] are past their row's length."""
        steps, rows = self.x.shape[:2]
        lengths = np.full(rows, steps) if self.lengths is None else self.lengths
        return np.arange(steps)[:, np.newaxis] >= lengths

    def reference(self, result):
        """Return the oracle's result, and its gradients.

        The derivative of ReLU jumps, so the oracle's backward starts from the rounded outputs.
        """
        weights = [decode(w) for w in self.weights]
        stack = [ref.Weights(*weights[4 * d : 4 * d + 4]) for d in range(self.directions)]
        x, d_output = decode(self.x), decode(self.d_output)
        x[self.padding()] = d_output[self.padding()] = 0
        expected = ref.stack_forward(
            self.mode,
            x,
            decode(self.h_0),
            decode(self.c_0),
            stack,
            directions=self.directions,
            lengths=self.lengths,
        )
        if self.mode == "rnn_relu":
            self._replace_outputs(expected, decode(result.output))
        return expected, ref.stack_backward(
            expected, d_output, decode(self.d_h_n), decode(self.d_c_n)
        )

    def _replace_outputs(self, expected, output):
        for run, own in zip(expected.tape[1], np.split(output, self.directions, axis=2)):
            saved = run.tape[3]
            for i, (t, active, (x, h, _)) in enumerate(saved):
                saved[i] = (t, active, (x, h, own[t]))


def assert_agrees(case, tolerance=None, **options):
    tolerance = tolerance or case.dtype
    result = case.forward(reserve=True, **options)
    gradients = case.backward(result)
    expected, expected_gradients = case.reference(result)

    def check(name, actual, wanted):
        ref.assert_close(decode(actual), wanted, name, tolerance)

    check("output", result.output, expected.output)
    check("h_n", result.h_n, expected.h)
    check("d x", gradients.x, expected_gradients.x)
    check("d h_0", gradients.h_0, expected_gradients.h0)
    if case.mode == "lstm":
        check("c_n", result.c_n, expected.c)
        check("d c_0", gradients.c_0, expected_gradients.c0)
    flat = [w for d in expected_gradients.weights for w in d if w is not None]
    for i, (actual, wanted) in enumerate(zip(gradients.weights, flat)):
        check(f"d weights[{i}]", actual, wanted)
    inference = case.forward(**options)
    for kept, free in zip(result[:3], inference[:3]):
        assert kept is None or np.array_equal(kept, free)
    padding = case.padding()
    assert not decode(result.output)[padding].any()
    assert not decode(gradients.x)[padding].any()


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ref.MODES)
def test_agrees_with_the_reference(mode, dtype, directions, sizes):
    assert_agrees(Case(mode, dtype, sizes, directions))


# Lengths outside of [0, T] count as its ends.
@pytest.mark.parametrize("lengths", [[0], [7, 0, 3, 1], [-5, 6, 100]])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ref.MODES)
def test_lengths(mode, dtype, directions, lengths):
    assert_agrees(Case(mode, dtype, (7, 33, 5, 7), directions, lengths))


@pytest.mark.parametrize("mode", ref.MODES)
def test_padding_is_not_looked_at(mode):
    for dtype in DTYPES:
        case = Case(mode, dtype, (6, 9, 4, 5), 2, [3, 0, 6, 1])
        clean = case.forward(reserve=True)
        clean_gradients = case.backward(clean)
        case.x[case.padding()] = encode(np.float64([np.nan, np.inf, -np.inf, 1e4]), dtype)
        case.d_output[case.padding()] = encode(np.full(10, np.nan), dtype)
        result = case.forward(reserve=True)
        gradients = case.backward(result)
        for name, dirty, wanted in [
            *zip(result._fields[:3], result[:3], clean[:3]),
            *zip(gradients._fields[:3], gradients[:3], clean_gradients[:3]),
            *(("weights", *pair) for pair in zip(gradients.weights, clean_gradients.weights)),
        ]:
            assert wanted is None or np.array_equal(dirty, wanted), (name, dtype)


@pytest.mark.parametrize("mode", ref.MODES)
def test_tf32(mode):
    case = Case(mode, "float32", (4, 5, 33, 40), 2)
    assert_agrees(case)
    assert_agrees(case, "tf32", tf32=True)
    assert not np.array_equal(case.forward().output, case.forward(tf32=True).output)


def test_one_environment_variable_forbids_tf32(monkeypatch):
    case = Case("lstm", "float32", (4, 5, 33, 40), 1)
    exact, rounded = case.forward().output, case.forward(tf32=True).output
    assert not np.array_equal(exact, rounded)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert np.array_equal(case.forward(tf32=True).output, exact)


@pytest.mark.parametrize("dtype", DTYPES)
def test_results_are_rounded_to_even(dtype):
    # The output of a layer without weights is the sum of its biases.
    step = 2.0 ** -ref.MANTISSA_BITS.get(dtype, 23)
    quarters = step * np.arange(12) / 4 if dtype != "float32" else step * np.arange(12)
    case = Case("rnn_relu", dtype, (1, 1, 1, len(quarters)), 1)
    for array in case.weights[:2]:
        array[:] = 0
    case.weights[2][:], case.weights[3][:] = encode(np.ones(1), dtype), encode(quarters, dtype)
    assert np.array_equal(case.forward().output.ravel(), encode(1 + quarters, dtype))
    case.weights[2][:] = encode(np.array([np.nan]), dtype)
    assert np.isnan(decode(case.forward().output)).all()


def test_running_states_are_float32():
    # f = i = o = 1, and c moves by less than half of bfloat16's step at 1; so do the gradients.
    case = Case("lstm", "bfloat16", (60, 1, 1, 1), 1)
    for array in case.weights[:2]:
        array[:] = 0
    case.weights[2][:] = encode(np.float64([20, 20, 1 / 300, 20]), "bfloat16")
    case.weights[3][:] = 0
    case.c_0[:] = case.d_c_n[:] = encode(np.ones(1), "bfloat16")
    case.d_h_n[:] = 0
    case.d_output[:] = encode(np.float64(1 / 300), "bfloat16")
    assert_agrees(case)


def test_weight_gradients_are_summed_in_float32():
    # A chunk for each step; after the last one, each adds less than half of bfloat16's step.
    case = Case("rnn_relu", "bfloat16", (60, 20, 1, 500), 1)
    case.x[:] = case.weights[0][:] = encode(np.ones(1), "bfloat16")
    for array in (*case.weights[1:], case.h_0, case.d_h_n):
        array[:] = 0
    case.d_output[:] = encode(np.float64(1 / 512), "bfloat16")
    case.d_output[-1] = encode(np.ones(1), "bfloat16")
    assert_agrees(case)


@pytest.mark.emulator
@pytest.mark.parametrize("directions", [1, 2])
def test_one_step_reads_each_weight_once(directions):
    case = Case("lstm", "float16", (1, 1, 40, 33), directions)
    before = [emulated.factor_uses(w) for w in case.weights]
    case.forward()
    uses = [emulated.factor_uses(w) - n for w, n in zip(case.weights, before)]
    assert uses == [1, 1, 0, 0] * directions


@pytest.mark.emulator
@pytest.mark.parametrize(
    "capability, dtype, message",
    [
        (
            61,
            "float32",
            r"device 0 \(emulator\) has compute capability 6.1, expected 7.0 or higher",
        ),
        (75, "bfloat16", r"compute capability 7.5, expected 8.0 or higher for bfloat16"),
    ],
)
def test_devices_that_are_too_old_are_named(capability, dtype, message):
    case = Case("gru", dtype, (2, 2, 2, 2), 1)
    with emulated.compute_capability(capability), pytest.raises(ValueError, match=message):
        case.forward()
    case.forward()


@pytest.mark.emulator
def test_devices_without_tf32_or_bfloat16_run_the_rest():
    case = Case("gru", "float32", (2, 2, 33, 20), 1)
    with emulated.compute_capability(70):
        assert_agrees(case, tf32=True)
        assert_agrees(Case("gru", "float16", (2, 2, 2, 2), 1))


@pytest.mark.emulator
@pytest.mark.parametrize("mode", ref.MODES)
def test_a_launch_that_fails_does_not_spoil_the_next_call(mode):
    case = Case(mode, "float32", (3, 2, 4, 5), 2, [2, 3])
    result = case.forward(reserve=True)
    for run in (case.forward, lambda: case.backward(result)):
        wanted = run()
        launches, failed = 0, True
        while failed:
            launches += 1
            with emulated.failing_launch(launches):
                try:
                    run()
                    failed = False
                except RuntimeError as error:
                    assert "too many resources requested for launch" in str(error)
            assert emulated.last_error() == 0
        assert launches > 6  # every launch of three steps in two directions has failed once
        for again, before in zip(run()[:3], wanted[:3]):
            assert before is None or np.array_equal(again, before)


@pytest.mark.emulator
@pytest.mark.parametrize(
    "environment, message",
    [
        ({"FASTRNN_CUBLAS": "/nowhere/libcublas.so"}, "usable cuBLAS:\n  /nowhere/libcublas.so: "),
        ({"FASTRNN_CUBLAS": np.__file__}, "__init__.py: .*invalid ELF header"),
        ({"FASTRNN_EMULATED_CUBLAS_VERSION": "0"}, "says that its version is 0, expected 11 or"),
        (
            {"FASTRNN_CUBLAS": None},
            "FASTRNN_CUBLAS may name one.*libcublas.so.11: not in|cublasCreate",
        ),
    ],
)
def test_a_library_that_is_no_cublas_is_named(environment, message):
    # In a process of its own: a library that was loaded stays.
    program = (
        "import emulated_library, test_kernels_cuda as t, os\n"
        f"for name, value in {environment!r}.items():\n"
        "    os.environ.pop(name, None) if value is None else os.putenv(name, value)\n"
        "case = t.Case('lstm', 'float32', (1, 1, 1, 1), 1)\n"
        "for _ in range(2):\n"
        "    try:\n        case.forward()\n"
        "    except RuntimeError as error:\n        print(error)\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    first, second = output[: len(output) // 2], output[len(output) // 2 :]
    assert first == second  # the next call tries again
    assert re.search(message, first, re.DOTALL), first


@pytest.mark.host_arrays
def test_arrays_that_are_not_aligned_are_named():
    case = Case("lstm", "float16", (2, 2, 2, 2), 1)
    result = case.forward(reserve=True)

    def shifted(array):
        return np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)

    for name, array in [("x", "x"), ("h_0", "h_0"), ("c_0", "c_0"), (r"weights\[1\]", "weights")]:
        broken = Case("lstm", "float16", (2, 2, 2, 2), 1)
        if array == "weights":
            broken.weights[1] = shifted(broken.weights[1])
        else:
            setattr(broken, array, shifted(getattr(broken, array)))
        with pytest.raises(ValueError, match=f"{name} is not aligned, expected .* multiple of 2"):
            broken.forward()
    case.d_output = shifted(case.d_output)
    with pytest.raises(ValueError, match="d_output is not aligned"):
        case.backward(result)


@pytest.mark.emulator
@pytest.mark.parametrize(
    "sizes, message",
    [
        ((2**31, 2**31, 1, 1), "the number of values of the input overflows|gates overflows"),
        ((1, 2**31, 1, 1), "batch size is 2147483648, expected at most 2147483647 on CUDA"),
        ((1, 1, 2**31, 1), "input size is 2147483648, expected at most"),
        ((1, 1, 1, 2**29), "the number of values of the weights overflows 64 bits"),
    ],
)
def test_sizes_beyond_what_the_kernels_count_are_named(sizes, message):
    with pytest.raises(ValueError, match=message):
        emulated.workspace_bytes("lstm", "float32", sizes)


@pytest.mark.emulator
@pytest.mark.parametrize("dtype", DTYPES)
def test_workspaces_do_not_grow_with_time(dtype):
    for mode in ref.MODES:
        assert emulated.workspace_bytes(mode, dtype, (10**6, 32, 250, 1000)) == (
            emulated.workspace_bytes(mode, dtype, (10**4, 32, 250, 1000))
        )
