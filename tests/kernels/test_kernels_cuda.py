"""What the CUDA kernels have and the CPU's do not: 16-bit types and TF32."""

from __future__ import annotations

import numpy as np
import pytest
import reference as ref

pytest.importorskip("fastrnn._C", reason="installed without the native library")

from kernel_cases import DTYPES, KernelCase, assert_agrees, devices, rounded

if "cuda" not in devices():
    pytest.skip("no CUDA kernels, or no GPU", allow_module_level=True)

# T, N, I, H: ones, odd numbers, more than one block of units, and chunks of time.
SIZES = [(1, 1, 1, 1), (3, 2, 7, 33), (2, 1, 3, 129), (7, 33, 5, 7)]


def case_of(mode, dtype, sizes, directions=1):
    return KernelCase(mode, *sizes, directions, device="cuda", dtype=dtype)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES["cuda"])
@pytest.mark.parametrize("mode", ref.MODES)
def test_agrees_with_the_reference(mode, dtype, directions, sizes):
    assert_agrees(case_of(mode, dtype, sizes, directions))


@pytest.mark.parametrize("dtype", DTYPES["cuda"][1:])
def test_directions_that_take_too_much_to_run_at_once(dtype):
    # For emulated builds too much is a megabyte, less than the sums of the weights' gradients.
    assert_agrees(case_of("lstm", dtype, (5, 1, 300, 128), 2))


# Not so odd that cuBLAS would rather do without tensor cores.
TF32_SIZES = (4, 16, 64, 128)


@pytest.mark.parametrize("mode", ref.MODES)
def test_tf32(mode):
    case = case_of(mode, "float32", TF32_SIZES, 2)
    assert_agrees(case)
    exact = case.forward().output
    case.tf32 = True
    assert_agrees(case, "tf32")
    assert not np.array_equal(case.forward().output, exact)


def test_one_environment_variable_forbids_tf32(monkeypatch):
    case = case_of("lstm", "float32", TF32_SIZES)
    exact, tf32 = case.forward().output, case.forward(tf32=True).output
    assert not np.array_equal(exact, tf32)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert np.array_equal(case.forward(tf32=True).output, exact)


@pytest.mark.parametrize("dtype", DTYPES["cuda"])
def test_results_are_rounded_to_even(dtype):
    # The output of a layer without weights is the sum of its biases.
    step = 2.0 ** -ref.MANTISSA_BITS.get(dtype, 23)
    quarters = step * np.arange(12) / 4 if dtype != "float32" else step * np.arange(12)
    case = case_of("rnn_relu", dtype, (1, 1, 1, len(quarters)))
    for array in case.weights[:2]:
        array[:] = 0
    case.weights[2][:], case.weights[3][:] = 1, quarters
    wanted = rounded((1 + quarters).astype(np.float32), dtype)
    assert np.array_equal(case.forward().output.ravel(), wanted)
    case.weights[2][:] = np.nan
    assert np.isnan(case.forward().output).all()


def test_running_states_are_float32():
    # f = i = o = 1, and c moves by less than half of bfloat16's step at 1; so do the gradients.
    case = case_of("lstm", "bfloat16", (60, 1, 1, 1))
    small = rounded(np.float32([1 / 300]), "bfloat16")[0]
    for array in case.weights[:2]:
        array[:] = 0
    case.weights[2][:] = [20, 20, small, 20]
    case.weights[3][:] = 0
    case.c_0[:] = case.d_c_n[:] = 1
    case.d_h_n[:] = 0
    case.d_output[:] = small
    assert_agrees(case)


def test_weight_gradients_are_summed_in_float32():
    # A chunk for each step; after the last one, each adds less than half of bfloat16's step.
    case = case_of("rnn_relu", "bfloat16", (60, 500, 1, 20))
    case.x[:] = case.weights[0][:] = 1
    for array in (*case.weights[1:], case.h_0, case.d_h_n):
        array[:] = 0
    case.d_output[:] = 1 / 512
    case.d_output[-1] = 1
    assert_agrees(case)
