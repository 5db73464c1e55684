"""Small layers, step by step, for what sanitizers slow down.

run.py runs this file with FASTRNN_ALGORITHM=stepwise, and where there is no sanitizer
tests/kernels/test_kernels.py besides.
"""

from __future__ import annotations

import pytest
import reference as ref
from kernel_cases import DTYPES, KernelCase, assert_agrees, devices

from fastrnn.kernels import Noise

DEVICE = devices()[-1]  # a GPU before the CPU

# T, N, I, H: ones, odd numbers, more than one block of units, more than one chunk of time, and
# more rows than one thread of the bias sums takes.
SIZES = [(1, 1, 1, 1), (3, 2, 7, 33), (2, 1, 3, 129), (7, 33, 5, 7)]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("mode", ref.MODES)
def test_layer(mode, directions, sizes):
    assert_agrees(KernelCase(mode, *sizes, directions, device=DEVICE))


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES[DEVICE][1:])
@pytest.mark.parametrize("mode", ref.MODES)
def test_16_bits_and_lengths(mode, dtype, directions):
    lengths = [5, 0, 3, 1, 5, 0, 3, 1, 5]
    case = KernelCase(mode, 5, 9, 3, 4, directions, device=DEVICE, dtype=dtype, lengths=lengths)
    assert_agrees(case)


@pytest.mark.parametrize("projection", [3, 21])  # below and beyond the gates of all units
@pytest.mark.parametrize("directions", [1, 2])
def test_projection_and_clipping(directions, projection):
    options = {"projection": projection, "clip": ref.Clip(-0.3, 0.4), "lengths": [5, 0, 3]}
    assert_agrees(KernelCase("lstm", 5, 3, 4, 5, directions, device=DEVICE, **options))


@pytest.mark.parametrize("projection", [0, 21])
@pytest.mark.parametrize("directions", [1, 2])
def test_noise(directions, projection):
    options = {"projection": projection, "lengths": [5, 0, 3], "noise": Noise(0.3, 0.4, 0.2)}
    assert_agrees(
        KernelCase("lstm", 5, 3, 4, 5, directions, device=DEVICE, noise_seed=7, **options)
    )


@pytest.mark.parametrize("dtype", DTYPES[DEVICE])
@pytest.mark.parametrize("mode", ref.NORM_GATES)
def test_layer_norm(mode, dtype):
    options = {"dtype": dtype, "lengths": [5, 0, 3], "layer_norm": True}
    assert_agrees(KernelCase(mode, 5, 3, 4, 70, 2, device=DEVICE, **options))


@pytest.mark.parametrize("mode", ref.MODES)
def test_two_layers(mode):
    assert_agrees(KernelCase(mode, 9, 5, 3, 4, device=DEVICE, layers=2))
