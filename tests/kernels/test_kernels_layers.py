"""fastrnn.kernels with several layers, against the oracle and against one layer after the other."""

from __future__ import annotations

import numpy as np
import pytest
import reference as ref

pytest.importorskip("fastrnn._C", reason="installed without the native library")

from kernel_cases import PLACES, KernelCase, assert_agrees, devices, get

from fastrnn import kernels

if not devices():
    pytest.skip("no kernels", allow_module_level=True)

DEVICE = devices()[-1]  # a GPU before the CPU
# T, N, I, H, L, D: one chunk of time and more, and stacks that use an array between layers again.
STACKS = [
    (5, 2, 3, 7, 2, 1),
    (19, 3, 4, 5, 2, 1),
    (37, 33, 3, 6, 2, 1),
    (9, 2, 5, 4, 3, 1),
    (6, 1, 1, 1, 4, 1),
    (3, 2, 4, 5, 2, 1),
    (9, 3, 4, 5, 5, 1),
    (9, 3, 4, 5, 2, 2),
    (37, 33, 3, 6, 3, 2),
]
on_every_place = pytest.mark.parametrize(("device", "dtype"), PLACES)


def make(mode, sizes, device=DEVICE, dtype="float32", algorithm="stepwise", lengths=None):
    steps, rows, inputs, hidden, layers, directions = sizes
    return KernelCase(
        mode,
        steps,
        rows,
        inputs,
        hidden,
        directions,
        device=device,
        dtype=dtype,
        lengths=None if lengths is None else np.resize(lengths, rows),
        algorithm=algorithm,
        layers=layers,
    )


def one_by_one(case):
    """Return forward's and backward's results of the case, layer after layer."""
    arguments, block = case.arguments(), case.directions
    finals, kept, x = [], [], arguments["x"]
    for k in range(0, case.layers * block, block):
        result = kernels.forward(
            **{
                **arguments,
                "x": x,
                "layers": 1,
                "weights": arguments["weights"][4 * k : 4 * (k + block)],
                "h_0": case.put(case.h_0[k : k + block]),
                "c_0": None if case.c_0 is None else case.put(case.c_0[k : k + block]),
            },
            reserve=True,
        )
        x = result.output
        finals.append([get(state) for state in result[1:3]])
        kept.append(result.reserve)
    gradient, found = case.put(case.d_output), []
    for k, reserve in reversed(list(zip(range(0, case.layers * block, block), kept))):
        states = [None if d is None else d[k : k + block] for d in (case.d_h_n, case.d_c_n)]
        gradients = kernels.backward(reserve, gradient, *(case.put(s) for s in states))
        gradient = gradients.x
        found.insert(0, gradients)
    states = [np.concatenate(s) for s in zip(*finals) if s[0] is not None]
    initial = [[get(g[i]) for g in found] for i in (1, 2)]
    weights = [get(w) for gradients in found for w in gradients.weights]
    initial = [np.concatenate(d) for d in initial if d[0] is not None]
    return [get(x), *states, get(gradient), *initial, *weights]


def at_once(case):
    result = case.forward(reserve=True)
    found = case.backward(result.reserve)
    arrays = [*result[:3], found.x, found.h_0, found.c_0, *found.weights]
    return [array for array in arrays if array is not None]


@pytest.mark.parametrize("sizes", STACKS, ids=str)
@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("mode", ref.MODES)
def test_agrees_with_the_reference(mode, device, sizes):
    assert_agrees(make(mode, sizes, device))


@pytest.mark.parametrize("lengths", [None, [9, 0, 3, 1]], ids=["whole", "ragged"])
@pytest.mark.parametrize("sizes", [(9, 5, 3, 7, 2, 1), (9, 5, 3, 7, 3, 2)], ids=str)
@on_every_place
@pytest.mark.parametrize("mode", ref.MODES)
def test_is_one_layer_after_the_other(mode, device, dtype, sizes, lengths):
    case = make(mode, sizes, device, dtype, lengths=lengths)
    for found, wanted in zip(at_once(case), one_by_one(case)):
        ref.assert_close(found, wanted, "of a layer", dtype)


@pytest.mark.parametrize("mode", ref.MODES)
@pytest.mark.parametrize(("layers", "directions"), [(2, 1), (3, 2)])
@on_every_place
def test_padding_is_not_looked_at(mode, device, dtype, layers, directions):
    sizes = (9, 4, 3, 5, layers, directions)
    case = make(mode, sizes, device, dtype, lengths=[4, 0, 9, 1])
    wanted = at_once(case)
    for array in (case.x, case.d_output):
        array[case.padding()] = np.nan
    for found, clean in zip(at_once(case), wanted):
        assert np.array_equal(found, clean)


@pytest.mark.parametrize("mode", ref.MODES)
def test_same_inputs_give_the_same_bits(mode):
    case = make(mode, (19, 5, 4, 33, 3, 1))
    for first, second in zip(at_once(case), at_once(case)):
        assert np.array_equal(first, second)


@pytest.mark.skipif(DEVICE != "cuda", reason="no GPU")
@pytest.mark.parametrize("algorithm", ["auto", "persistent"])
def test_persistent_layers_come_one_after_the_other(algorithm):
    for sizes in [(9, 3, 4, 5, 2, 1), (9, 3, 4, 5, 3, 2)]:
        assert_agrees(make("lstm", sizes, algorithm=algorithm))


def test_reserve_is_within_its_bound():
    for mode in ref.MODES:
        case = make(mode, (5, 3, 2, 7, 3, 2))
        (values,) = case.forward(reserve=True).reserve.values.shape
        of_layers = 3 * 2 * 5 * 3 * (ref.GATES[mode] + 1) * 7
        assert values <= of_layers + 2 * 5 * 3 * 2 * 7, mode  # and the outputs in between


def test_what_there_is_no_stack_of_is_named():
    arguments = make("lstm", (3, 2, 4, 5, 2, 1)).arguments()

    def fails(error, message, **changes):
        with pytest.raises(error, match=message):
            kernels.forward(**{**arguments, **changes})

    for layers in (0, 2**70):
        fails(ValueError, f"layers is {layers}, expected 1 to 65536", layers=layers)
    fails(TypeError, "layers is of type float, expected an int", layers=2.0)
    fails(ValueError, "weights has 8 arrays, expected 12 or 24: 4 for each of 3 la", layers=3)
    fails(ValueError, r"weights\[4\] \(i2h_weight\) is of shape \(20, 5\), expected", layers=1)
    wide = make("lstm", (3, 2, 4, 6, 2, 1)).arguments()
    fails(ValueError, r"h_0 is of shape \(2, 2, 6\), expected shape \(2, 2, 5\)", h_0=wide["h_0"])
    swapped = arguments["weights"][4:] + arguments["weights"][:4]
    fails(ValueError, r"weights\[0\] \(i2h_weight\) is of shape \(20, 5\)", weights=swapped)
