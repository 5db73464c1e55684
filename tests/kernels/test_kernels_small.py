"""Small layers on the CPU, whose steps call no library: fastrnn.kernels against the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import reference as ref

pytest.importorskip("fastrnn._C", reason="installed without the native library")

from kernel_cases import KernelCase, assert_agrees, devices

pytestmark = pytest.mark.skipif("cpu" not in devices(), reason="a build without CPU kernels")

for_every_mode = pytest.mark.parametrize("mode", ref.MODES)
RAGGED = [1, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65]
# N and H with G * N * H * H on both sides of what is small, in turn for 4, 3 and 1 gates.
BORDER = [(8, 64), (9, 64), (1, 181), (1, 182), (1, 209), (1, 210), (4, 181), (4, 182)]


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("hidden", RAGGED)
@for_every_mode
def test_agrees_where_vectors_and_rows_are_ragged(mode, hidden, directions):
    for rows in range(1, 10):
        for steps in (1, 2, 5):
            assert_agrees(KernelCase(mode, steps, rows, 3, hidden, directions, seed=1))


@pytest.mark.parametrize("hidden", RAGGED)
@for_every_mode
def test_agrees_where_rows_end_before_others(mode, hidden):
    for rows in (1, 4, 7):
        assert_agrees(
            KernelCase(mode, 5, rows, 3, hidden, 2, lengths=np.resize([3, 0, 5, 1], rows))
        )


@pytest.mark.parametrize(("rows", "hidden"), BORDER)
@for_every_mode
def test_agrees_on_both_sides_of_the_border(mode, rows, hidden):
    for steps in (4, 9):
        assert_agrees(KernelCase(mode, steps, rows, 3, hidden, 2))


@pytest.mark.parametrize("rows", [7, 8, 15, 32, 33])
@pytest.mark.parametrize("steps", [15, 16])
@for_every_mode
def test_agrees_on_both_sides_of_what_is_tall(mode, steps, rows):
    assert_agrees(KernelCase(mode, steps, rows, 3, {"lstm": 256, "gru": 300}.get(mode, 512)))


@pytest.mark.parametrize("hidden", [5, 24, 64])
@for_every_mode
def test_a_row_is_the_same_bits_whatever_rows_are_beside_it(mode, hidden):
    case = KernelCase(mode, 6, 15, hidden, hidden)
    case.x[:] = 0.0  # The input's product is a library's, which may round rows differently.
    case.h_0[:] = case.h_0[:, :1]
    case.d_output[:] = case.d_output[:, :1]
    case.d_h_n[:] = case.d_h_n[:, :1]
    if mode == "lstm":
        case.c_0[:] = case.c_0[:, :1]
        case.d_c_n[:] = case.d_c_n[:, :1]
    result = case.forward(reserve=True)
    gradients = case.backward(result.reserve)
    for array in (result.h_n, gradients.h_0):
        assert np.array_equal(array, np.broadcast_to(array[:, :1], array.shape))
