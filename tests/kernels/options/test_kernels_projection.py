"""LSTMs whose output is projected: fastrnn.kernels with `projected`, against the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import reference as ref

pytest.importorskip("fastrnn._C", reason="installed without the native library")

from kernel_cases import PLACES, KernelCase, assert_agrees, devices, get, put

from fastrnn import _native, kernels, plans

on_every_place = pytest.mark.parametrize(("device", "dtype"), PLACES)
# T, N, I, H, P: ones, outputs below and beyond the gates of all units, several chunks of time, and
# rows and units that threads share.
SIZES = [
    (1, 1, 1, 1, 1),
    (5, 3, 4, 7, 3),
    (5, 3, 4, 5, 5),
    (9, 2, 3, 2, 17),
    (21, 100, 3, 6, 5),
    (6, 33, 5, 130, 65),
]


def make(sizes, directions=1, **options):
    *others, projection = sizes
    return KernelCase("lstm", *others, directions, projection=projection, **options)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@on_every_place
def test_agrees_with_the_reference(device, dtype, sizes, directions):
    # With seed 0 the gradients of the single input cancel.
    assert_agrees(make(sizes, directions, device=device, dtype=dtype, seed=1))


@pytest.mark.parametrize("directions", [1, 2])
@on_every_place
def test_rows_that_end_before_others(device, dtype, directions):
    lengths = np.resize([7, 0, 3, 1], 33)
    case = make((7, 33, 5, 7, 4), directions, device=device, dtype=dtype, lengths=lengths)
    assert_agrees(case)


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize(("steps", "rows", "units"), [(8, 8, 96), (3, 3, 700), (2, 1, 40)])
def test_agrees_however_products_are_computed(device, steps, rows, units):
    # On a CPU: rows for each thread, units for each thread, and weights that are not packed.
    assert_agrees(make((steps, rows, 3, units, units // 3), device=device))


@pytest.mark.parametrize("layers", [2, 3])
@on_every_place
def test_layers_on_top_of_each_other(device, dtype, layers):
    sizes = (9, 5, 3, 7, 4)
    assert_agrees(
        make(sizes, 2, device=device, dtype=dtype, layers=layers, lengths=[9, 0, 3, 1, 9])
    )


@pytest.mark.parametrize("device", devices())
def test_together_with_a_range_of_the_cell_state(device):
    assert_agrees(make((9, 5, 3, 37, 4), 2, device=device, clip=ref.Clip(-0.3, 0.4), layers=2))


@on_every_place
def test_padding_is_not_looked_at(device, dtype):
    case = make((6, 9, 4, 5, 3), 2, device=device, dtype=dtype, lengths=np.resize([3, 0, 6, 1], 9))

    def run():
        result = case.forward(reserve=True)
        found = case.backward(result.reserve)
        return [*result[:3], found.x, found.h_0, found.c_0, *found.weights]

    wanted = run()
    case.x[case.padding()] = [np.nan, np.inf, -np.inf, 1e4]
    case.d_output[case.padding()] = np.nan
    for found, clean in zip(run(), wanted):
        assert np.array_equal(found, clean)


@pytest.mark.parametrize("device", devices())
def test_same_inputs_give_the_same_bits(device):
    case = make((30, 33, 65, 70, 20), 2, device=device)
    results = [case.forward(reserve=True) for _ in range(2)]
    gradients = [case.backward(result.reserve) for result in results]
    for a, b in zip(*([*g.weights, g.x, g.h_0, g.c_0] for g in gradients)):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("device", devices())
def test_reserve_is_what_is_announced(device):
    case = make((5, 3, 2, 7, 4), 2, device=device, layers=3)
    (values,) = case.forward(reserve=True).reserve.values.shape
    words = _native.library().reserve_words("lstm", "float32", 7, 2, 3, 4)
    assert values == 5 * 3 * words == 5 * 3 * (3 * 2 * 6 * 7 + 2 * 2 * 4)


@pytest.mark.skipif("cuda" not in devices(), reason="no CUDA device, nor an emulated one")
def test_steps_are_stepwise_on_a_gpu(monkeypatch):
    monkeypatch.delenv("FASTRNN_ALGORITHM", raising=False)
    case = make((9, 3, 2, 20, 8), device="cuda", algorithm="persistent")
    with pytest.raises(ValueError, match="persistent, but persistent kernels do not project"):
        case.forward()
    text = plans.reason("lstm", 9, 3, 2, 20, projection=8, reserve=True, device=0)
    assert text.count("ward: stepwise: persistent kernels do not project the output\n") == 2


def test_bad_input_is_named():
    arguments = make((3, 2, 4, 5, 3), device=devices()[0]).arguments()

    def fails(message, **changes):
        with pytest.raises(ValueError, match=message):
            kernels.forward(**{**arguments, **changes})

    fails("only an lstm can be projected", mode="gru", c_0=None)
    fails("weights has 5 arrays, expected 4 or 8: 4 for each", projected=False)
    fails("weights has 4 arrays, expected 5 or 10: 5 for each", weights=arguments["weights"][:4])
    narrow = make((3, 2, 4, 5, 2), device=devices()[0]).arguments()
    fails(r"h_0 is of shape \(1, 2, 2\), expected shape \(1, 2, 3\)", h_0=narrow["h_0"])
    *others, h2r_weight = arguments["weights"]
    of_h2r = r"weights\[4\] \(h2r_weight\) is of shape "
    mixed = [*others, narrow["weights"][4]]
    fails(of_h2r + r"\(2, 5\), expected shape \(3, 5\)", weights=mixed)
    transposed = put(np.ascontiguousarray(get(h2r_weight).T), devices()[0])
    fails(of_h2r + r"\(5, 3\), expected shape \(3, 5\)", weights=[*others, transposed])
