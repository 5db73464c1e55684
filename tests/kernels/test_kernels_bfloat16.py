"""bfloat16 on the CPU: fastrnn.kernels on arrays that have only DLPack, against the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import reference as ref

pytest.importorskip("fastrnn._C", reason="installed without the native library")

from host_bfloat16 import HostBfloat16
from kernel_cases import KernelCase, assert_agrees, devices, rounded

from fastrnn import kernels

pytestmark = [
    pytest.mark.skipif("cpu" not in devices(), reason="a build without CPU kernels"),
    pytest.mark.skipif(not hasattr(np.ndarray, "__dlpack__"), reason="NumPy without DLPack"),
]
# T, N, I, H: small; several chunks of time; our own product, and oneDNN's packed and not.
SIZES = [(4, 3, 5, 7), (21, 100, 3, 6), (9, 32, 40, 200), (2, 1, 5, 300)]
# A derivative of ReLU that rounding decides is not the oracle's, except in a single layer.
MODES = [mode for mode in ref.MODES if mode != "rnn_relu"]


def make(mode, sizes, directions=1, **options):
    return KernelCase(mode, *sizes, directions, dtype="bfloat16", **options)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("mode", ref.MODES)
def test_agrees_with_the_reference(mode, sizes):
    assert_agrees(make(mode, sizes))


@pytest.mark.parametrize("lengths", [None, [5, 0, 3, 1, 4]], ids=["whole", "ragged"])
@pytest.mark.parametrize("mode", MODES)
def test_stacks_of_two_directions(mode, lengths):
    assert_agrees(make(mode, (5, 5, 4, 9), 2, layers=2, lengths=lengths))


def test_projection():
    assert_agrees(make("lstm", (9, 32, 3, 200), 2, projection=96))


def test_results_need_arrays_to_write_to():
    case = make("gru", (4, 3, 2, 5))
    with pytest.raises(ValueError, match="NumPy has no bfloat16: pass the arrays to write to"):
        kernels.forward("gru", HostBfloat16(case.x), [HostBfloat16(w) for w in case.weights])


@pytest.mark.parametrize("lengths", [None, [5, 0, 3, 1, 4]], ids=["whole", "ragged"])
@pytest.mark.parametrize("seed", [7, None], ids=["drawn", "mean"])
@pytest.mark.parametrize("mode", MODES)
def test_noise(mode, seed, lengths):
    options = {
        "lengths": lengths,
        "noise": kernels.Noise(0.3, 0.2 * (mode == "lstm"), 0.4),
        "noise_seed": seed,
    }
    assert_agrees(make(mode, (5, 5, 4, 9), 2, layers=2, **options))


@pytest.mark.parametrize("lengths", [None, [5, 0, 3, 1, 4]], ids=["whole", "ragged"])
@pytest.mark.parametrize("mode", ["lstm", "gru"])
def test_layer_norm(mode, lengths):
    assert_agrees(make(mode, (5, 5, 4, 9), 2, layers=2, lengths=lengths, layer_norm=True))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_results_are_rounded_to_the_nearest_and_ties_to_even(dtype):
    # The output is the sum of two inputs, which is computed in float32.
    case = KernelCase("rnn_relu", 1, 4096, 2, 1, dtype=dtype)
    exponents = np.random.RandomState(0).uniform(-17, 14, (4096, 1))  # subnormal in float16 too
    case.x[0] = rounded(np.exp2(np.hstack([exponents, exponents + 1])), dtype)
    case.weights = [np.ones((1, 2), np.float32), *(0 * w for w in case.weights[1:])]
    assert np.array_equal(case.forward().output, rounded(case.x.sum(2, keepdims=True), dtype))


def test_infinity_and_nan_stay():
    case = make("rnn_relu", (1, 1, 2, 2))
    case.x[0, 0] = [np.inf, 1.0]
    case.weights[0][:] = [[1.0, 0.0], [0.0, np.nan]]
    output = case.forward().output[0, 0]
    assert np.isposinf(output[0]) or np.isnan(output[0])
    assert np.isnan(output[1])
