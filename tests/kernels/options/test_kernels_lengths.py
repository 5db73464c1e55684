"""Rows that end before others: fastrnn.kernels with lengths, against the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import reference as ref

pytest.importorskip("fastrnn._C", reason="installed without the native library")

from kernel_cases import PLACES, KernelCase, assert_agrees, devices

on_every_place = pytest.mark.parametrize("device, dtype", PLACES)
for_every_mode = pytest.mark.parametrize("mode", ref.MODES)


# Lengths outside of [0, T] count as its ends.
@pytest.mark.parametrize("lengths", [[0], [7, 0, 3, 1], [-5, 6, 100]])
@pytest.mark.parametrize("directions", [1, 2])
@on_every_place
@for_every_mode
def test_agrees_with_the_reference(mode, device, dtype, directions, lengths):
    sizes, lengths = (7, 33, 5, 7), np.resize(lengths, 33)
    assert_agrees(KernelCase(mode, *sizes, directions, device=device, dtype=dtype, lengths=lengths))


# T, N, I, H: more than one chunk of time on the CPU too; few steps, and units for several threads.
@pytest.mark.parametrize("sizes", [(21, 100, 3, 6), (3, 3, 4, 600)])
@pytest.mark.parametrize("device", devices())
@for_every_mode
def test_agrees_where_work_is_divided(mode, device, sizes):
    lengths = np.resize([sizes[0], 1, 2], sizes[1])
    assert_agrees(KernelCase(mode, *sizes, 2, device=device, lengths=lengths))


@on_every_place
@for_every_mode
def test_padding_is_not_looked_at(mode, device, dtype):
    case = KernelCase(
        mode, 6, 9, 4, 5, 2, device=device, dtype=dtype, lengths=np.resize([3, 0, 6, 1], 9)
    )
    clean = case.forward(reserve=True)
    wanted = case.backward(clean.reserve)
    case.x[case.padding()] = [np.nan, np.inf, -np.inf, 1e4]
    case.d_output[case.padding()] = np.nan
    result = case.forward(reserve=True)
    found = case.backward(result.reserve)
    pairs = [*zip(result[:3], clean[:3]), *zip(found.weights, wanted.weights)]
    pairs += [(getattr(found, name), getattr(wanted, name)) for name in ("x", "h_0", "c_0")]
    for dirty, expected in pairs:
        assert expected is None or np.array_equal(dirty, expected)
