"""Layer-normalised LSTMs and GRUs: fastrnn.kernels with `layer_norm`, against the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import reference as ref

pytest.importorskip("fastrnn._C", reason="installed without the native library")

from kernel_cases import PLACES, PRECISE, KernelCase, assert_agrees, devices

from fastrnn import _native, kernels, plans

MODES = tuple(ref.NORM_GATES)
on_every_place = pytest.mark.parametrize(("device", "dtype"), PLACES)
# T, N, I, H: few values to a mean (a single input would leave no gradient of it), odd numbers,
# several chunks of time, and rows that are several tasks.
SIZES = {
    "cpu": [(1, 1, 4, 5), (5, 3, 4, 7), (21, 100, 3, 6), (3, 130, 5, 130)],
    "cuda": [(1, 1, 4, 5), (21, 12, 3, 6), (3, 4, 5, 130)],
}
CASES = [(*place, sizes) for place in PLACES for sizes in SIZES[place[0]]]


def make(mode, sizes, directions=1, **options):
    return KernelCase(mode, *sizes, directions, layer_norm=True, **options)


@pytest.mark.parametrize(("device", "dtype", "sizes"), CASES)
@pytest.mark.parametrize("mode", MODES)
def test_agrees_with_the_reference(device, dtype, mode, sizes):
    assert_agrees(make(mode, sizes, device=device, dtype=dtype))


@pytest.mark.parametrize("mode", MODES)
@on_every_place
def test_layers_directions_and_rows_that_end_before_others(device, dtype, mode):
    options = {"layers": 2, "lengths": np.resize([3, 0, 7, 1], 9)}
    assert_agrees(make(mode, (7, 9, 5, 11), 2, device=device, dtype=dtype, **options))


@pytest.mark.skipif("cpu" not in devices(), reason="no kernels for the CPU")
@pytest.mark.parametrize(("steps", "rows", "units"), [(8, 8, 96), (3, 3, 700), (2, 1, 40)])
@pytest.mark.parametrize("mode", MODES)
def test_agrees_however_products_are_computed(mode, steps, rows, units):
    # Rows for each thread, units for each thread, and weights that are not packed.
    assert_agrees(make(mode, (steps, rows, 3, units)))


@pytest.mark.parametrize("mode", MODES)
@on_every_place
def test_padding_is_not_looked_at(device, dtype, mode):
    case = make(mode, (6, 9, 4, 5), 2, device=device, dtype=dtype, lengths=np.resize([3, 0, 6], 9))

    def run():
        result = case.forward(reserve=True)
        found = case.backward(result.reserve)
        return [a for a in (*result[:3], found.x, found.h_0, found.c_0) if a is not None], found

    wanted, of_weights = run()
    case.x[case.padding()] = [np.nan, np.inf, -np.inf, 1e4]
    case.d_output[case.padding()] = np.nan
    found, of_found = run()
    for a, b in zip([*found, *of_found.weights], [*wanted, *of_weights.weights]):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("mode", MODES)
def test_numbers_far_from_zero(mode, device):
    # The variance of a row is small beside its mean.
    case = make(mode, (4, 3, 5, 9), device=device)
    case.x += 1000
    case.weights[0][:] = np.abs(case.weights[0]) / 1000 + 1
    result = case.forward()
    expected = case.reference()[0]
    np.testing.assert_allclose(result.output, expected.output, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("device", "dtype"), PRECISE)
def test_a_variance_that_overflows_is_not_hidden(device, dtype, mode):
    case = make(mode, (2, 3, 4, 5), device=device, dtype=dtype)
    case.x *= 1e200 if dtype == "float64" else 1e25
    assert np.isnan(case.forward().output).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.skipif("cpu" not in devices(), reason="no kernels for the CPU")
def test_the_threads_do_not_change_a_bit(mode):
    case = make(mode, (12, 33, 30, 20), 2)

    def run(threads):
        result = case.forward(reserve=True, threads=threads)
        return kernels.backward(result.reserve, case.d_output, threads=threads)

    one, many = run(1), run(None)
    names = case.names * 2
    for name, a, b in zip(names, one.weights, many.weights):
        if not name.endswith("_weight"):
            assert np.array_equal(a, b), name


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("mode", MODES)
def test_reserve_is_what_is_announced(mode, device):
    case = make(mode, (5, 3, 2, 7), 2, device=device, layers=3)
    (values,) = case.forward(reserve=True).reserve.values.shape
    words = _native.library().reserve_words(mode, "float32", 7, 2, 3, layer_norm=True)
    units = {"lstm": 5 + 2 * 4, "gru": 4 + 2 * 3}[mode]
    assert values == 5 * 3 * words == 5 * 3 * (3 * 2 * (units * 7 + 4) + 2 * 2 * 7)


def test_what_has_no_layer_norm_is_named():
    device = devices()[0]
    arguments = make("lstm", (3, 2, 4, 5), device=device).arguments()

    def fails(message, **changes):
        with pytest.raises(ValueError, match=message):
            kernels.forward(**{**arguments, **changes})

    fails("layer_norm was given together with noise", noise=kernels.Noise(0.1), seed=1)
    # Named before the number of weights, which the combination does not have.
    four = arguments["weights"][:4]
    fails("layer_norm was given, but a rnn_tanh has none", mode="rnn_tanh", c_0=None, weights=four)
    five = [*four, np.zeros((3, 5), "f4")]
    fails("layer_norm was given for a projected lstm", projected=True, weights=five)
    fails("layer_norm was given together with clip", clip=kernels.Clip(-1.0, 1.0))
    fails("weights has 7 arrays, expected 8 or 16", weights=arguments["weights"][:7])
    *others, _ = arguments["weights"]
    fails(r"weights\[7\] \(c_beta\) is of shape", weights=[*others, arguments["weights"][4]])
    for name in ("layer_norm", "projected"):
        with pytest.raises(TypeError, match=f"{name} is 'no', expected True or False"):
            kernels.forward(**{**arguments, name: "no"})
    with pytest.raises(TypeError, match="layer_norm is 1, expected True or False"):
        plans.reason("gru", 3, 2, 4, 5, layer_norm=1)
    with pytest.raises(ValueError, match="layer_norm was given for a projected lstm"):
        of_device = "cpu" if device == "cpu" else 0
        plans.reason("lstm", 3, 2, 4, 5, projection=2, layer_norm=True, device=of_device)
