"""Stepwise calls with the same arrays as before, which a GPU is given as CUDA graphs.

A call runs plainly when its arrays are seen first, is captured the second time and replayed from
then on; so every test has four.
"""

from __future__ import annotations

import numpy as np
import pytest
import reference as ref

pytest.importorskip("fastrnn._C", reason="installed without the native library")

from kernel_cases import DTYPES, devices
from repeated_layer import CALLS, STEPS, Layer

from fastrnn import kernels

if "cuda" not in devices():
    pytest.skip("no GPU", allow_module_level=True)


def counts():
    """Return what has become of this thread's calls that came again."""
    return kernels._native().replay_counts()


@pytest.mark.parametrize("dtype", DTYPES["cuda"])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("mode", ref.MODES)
def test_calls_with_the_same_arrays_give_the_same(mode, directions, dtype):
    layer = Layer(mode, directions, dtype, lengths=[STEPS, 4, 0] if dtype == "float16" else None)
    layer.run()
    layer.check()
    first = layer.numbers()
    for _ in range(1, CALLS):
        layer.run()
        for found, wanted in zip(layer.numbers(), first):
            assert np.array_equal(found, wanted)


# Two streams compute two directions at once.
@pytest.mark.parametrize(("directions", "layers"), [(1, 1), (2, 1), (1, 3), (2, 2)])
@pytest.mark.parametrize("steps", [STEPS, 19])
@pytest.mark.parametrize("mode", ref.MODES)
def test_every_call_sees_what_its_arrays_hold(mode, steps, directions, layers):
    layer = Layer(mode, directions, steps=steps, layers=layers)
    before = counts()
    for call in range(CALLS + 1):
        layer.replace(seed=call)
        layer.run()
        layer.check()
    after = counts()
    assert after["failed"] == before["failed"], after["failure"]
    graphs = 2 * layers
    assert after["captured"] - before["captured"] == graphs
    assert after["replayed"] - before["replayed"] == graphs * CALLS


@pytest.mark.parametrize(("directions", "layers"), [(2, 1), (1, 2)])
def test_other_arrays_are_other_calls(directions, layers):
    layers = [Layer("lstm", directions, seed=seed, layers=layers) for seed in range(3)]
    for _ in range(CALLS):
        for layer in layers:
            layer.run()
            layer.check()
    first = layers[0]
    kept = first.numbers(), first.result, first.gradients
    first.fresh()
    first.replace(seed=5)
    for _ in range(CALLS):
        first.run()
        first.check()
    # A graph of the arrays that were written to before would have written to them again.
    _, first.result, first.gradients = kept
    for found, wanted in zip(first.numbers(), kept[0]):
        assert np.array_equal(found, wanted)


WEIGHTS = range(8)
ARRAYS = [
    *(("arguments", name, None) for name in ("x", "h_0", "c_0", "lengths")),
    *(("arguments", "weights", i) for i in WEIGHTS),
    *(("gradients_of_results", None, i) for i in range(3)),
    *(("result", name, None) for name in ("output", "h_n", "c_n", "reserve")),
    *(("gradients", name, None) for name in ("x", "h_0", "c_0")),
    *(("gradients", "weights", i) for i in WEIGHTS),
]


def take_array(layer, other, of, name, index):
    """Have a layer use one array of another one, in the place of its own."""
    if of == "gradients_of_results":
        layer.gradients_of_results[index] = other.gradients_of_results[index]
        field = ("d_output", "d_h_n", "d_c_n")[index]
        setattr(layer.case, field, getattr(other.case, field))
    elif of == "arguments" and index is None:
        layer.arguments[name] = other.arguments[name]
        setattr(layer.case, name, getattr(other.case, name))
    elif of == "arguments":
        layer.arguments[name][index] = other.arguments[name][index]
        getattr(layer.case, name)[index] = getattr(other.case, name)[index]
    else:
        arrays, others = getattr(layer, of), getattr(other, of)
        array = getattr(others, name)
        if index is not None:
            array = list(getattr(arrays, name))
            array[index] = getattr(others, name)[index]
        setattr(layer, of, arrays._replace(**{name: array}))


@pytest.mark.parametrize(("directions", "layers"), [(2, 1), (1, 2)])
@pytest.mark.parametrize(("of", "name", "index"), ARRAYS)
def test_one_other_array_is_another_call(of, name, index, directions, layers):
    layer = Layer("lstm", directions, seed=0, lengths=[STEPS, 4, 0], layers=layers)
    other = Layer("lstm", directions, seed=1, lengths=[2, STEPS, 5], layers=layers)
    other.run()
    for _ in range(CALLS):
        layer.run()
    # A graph of the call before must not be, and would use these.
    kept = [*layer.arguments["weights"], *layer.arguments.values(), *layer.gradients_of_results]
    kept += [layer.result, layer.gradients]
    take_array(layer, other, of, name, index)
    layer.run()
    layer.check()
    del kept


def test_other_descriptions_are_other_calls():
    # The same arrays in all: only what is said about them differs.
    tanh = Layer("rnn_tanh")
    relu = Layer("rnn_relu")
    relu.arguments = {**tanh.arguments, "mode": "rnn_relu"}
    relu.case.x, relu.case.weights, relu.case.h_0 = tanh.case.x, tanh.case.weights, tanh.case.h_0
    for _ in range(CALLS):
        for layer in (tanh, relu):
            layer.result, layer.gradients = tanh.result, tanh.gradients
            layer.run()
            layer.check()
            tanh.result, tanh.gradients = layer.result, layer.gradients


@pytest.mark.parametrize("steps", [7, 8])
def test_few_steps(steps):
    layer = Layer("gru", 2, steps=steps)
    for call in range(CALLS):
        layer.replace(seed=call)
        layer.run()
        layer.check()


def test_graphs_can_be_switched_off(monkeypatch):
    layer = Layer("lstm")
    for call, wanted in enumerate("001110101"):
        monkeypatch.setenv("FASTRNN_GRAPHS", wanted)
        layer.replace(seed=call)
        layer.run()
        layer.check()
    monkeypatch.setenv("FASTRNN_GRAPHS", "yes")
    with pytest.raises(ValueError, match="FASTRNN_GRAPHS is 'yes', expected 0 or 1"):
        layer.run()


def test_more_calls_than_are_remembered():
    layers = [Layer("gru", seed=seed) for seed in range(20)]
    for _ in range(2):
        for layer in layers:
            for _ in range(CALLS):
                layer.run()
            layer.check()
