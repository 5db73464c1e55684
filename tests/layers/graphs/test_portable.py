"""Graphs of MXNet's own operators, made of those that run on the native one."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import reference as ref
from cases import MODES, LayerCase, Parent, attach, mx, with_reserves

import fastrnn
from fastrnn import mxnet as _mxnet
from fastrnn.cell import Cell
from fastrnn.mxnet import native

needs_native = pytest.mark.skipif(not native.STATUS.usable, reason=native.STATUS.reason)


def operators(symbol):
    return {node["op"] for node in json.loads(symbol.tojson())["nodes"]}


def imported(case, folder):
    """Export a layer, replace its graph by the portable one, and read that again."""
    net = Parent(case.layer())
    net.hybridize()
    arguments = case.arguments()
    net(*arguments)
    net.export(str(folder / "net"))
    symbol = mx.sym.load(str(folder / "net-symbol.json"))
    portable = fastrnn.portable(symbol)
    assert native.GRAPH_OPERATOR in operators(symbol)
    assert not any("fastrnn" in name for name in operators(portable))
    assert sorted(portable.list_inputs()) == sorted(symbol.list_inputs())
    portable.save(str(folder / "net-symbol.json"))
    count = sum(name.startswith("data") for name in portable.list_inputs())
    names = ["data"] if count == 1 else [f"data{k}" for k in range(count)]
    files = str(folder / "net-symbol.json"), str(folder / "net-0000.params")
    block = mx.gluon.SymbolBlock.imports(files[0], names, files[1])

    def run(x, states=(), *lengths):
        output = block(x, *(states or ()), *lengths)
        return (output[0], output[1:]) if states else output

    return run


@needs_native
@pytest.mark.parametrize("lengths", [False, True], ids=["", "lengths"])
@pytest.mark.parametrize("states", [True, False], ids=["states", "no-states"])
@pytest.mark.parametrize("mode", MODES)
def test_the_same_numbers_and_gradients(mode, states, lengths, tmp_path):
    case = LayerCase(mode, layers=2, directions=2, layout="NTC", states=states, lengths=lengths)
    run, arguments = imported(case, tmp_path), case.arguments()
    attach(arguments)
    with mx.autograd.record():
        outcome = run(*arguments)
    case.check_outcome(outcome)
    case.backward(outcome)
    ref.assert_close(arguments[0].grad, case.gradients.x.swapaxes(0, 1))


@needs_native
@pytest.mark.parametrize("lengths", [False, True], ids=["", "lengths"])
def test_a_clipped_and_projected_layer(lengths, tmp_path):
    options = {"clip": ref.Clip(-0.2, 0.3), "projection": 4, "lengths": lengths}
    case = LayerCase("lstm", layers=2, directions=2, **options)
    run, arguments = imported(case, tmp_path), case.arguments()
    attach(arguments)
    with mx.autograd.record():
        outcome = run(*arguments)
    case.check_outcome(outcome)
    case.backward(outcome)
    ref.assert_close(arguments[0].grad, case.gradients.x)


@needs_native
def test_a_graph_of_numpy_arrays_that_others_convert(tmp_path):
    # The shapes of its constants do not depend on the mode of the process that converts it.
    case = LayerCase("lstm", states=False)
    file = str(tmp_path / "net-symbol.json")
    mx.util.set_np()
    try:
        net = Parent(case.layer())
        net.hybridize()
        x = mx.np.array(case.x, dtype="float32")
        net(x)
        net.export(str(tmp_path / "net"))
        mx.util.reset_np()
        fastrnn.portable(mx.sym.load(file)).save(file)
        mx.util.set_np()
        parameters = str(tmp_path / "net-0000.params")
        block = mx.gluon.SymbolBlock.imports(file, ["data"], parameters)
        case.check_outcome(block(x))
    finally:
        mx.util.reset_np()


@needs_native
def test_half_precision_with_lengths_runs_step_by_step():
    x, h, rows, *weights = (mx.sym.var(name) for name in "xhnwrbc")
    output, *_ = native.graph_layers(Cell("gru", 4), x, [h], [[weights]], "float16", rows, "gru")
    assert "_foreach" in operators(fastrnn.portable(output))


@needs_native
def test_it_loads_without_fastrnn(tmp_path):
    case = LayerCase("gru", layers=2, states=False)
    imported(case, tmp_path)
    np.save(tmp_path / "x.npy", case.x.astype(np.float32))
    script = """
import runpy, sys, numpy
mx = runpy.run_path(sys.argv[1])["import_mxnet"]()
block = mx.gluon.SymbolBlock.imports("net-symbol.json", ["data"], "net-0000.params")
numpy.save("y.npy", block(mx.nd.array(numpy.load("x.npy"))).asnumpy())
assert "fastrnn" not in sys.modules
"""
    command = [sys.executable, "-c", script, _mxnet.__file__]
    subprocess.run(command, cwd=tmp_path, check=True)
    case.check_outcome(np.load(tmp_path / "y.npy"))


@needs_native
def test_a_layer_inside_a_loop_is_refused():
    layer = fastrnn.GRU(2, input_size=3)
    step = lambda x, state: (layer(x), state)  # noqa: E731
    output, _ = mx.sym.contrib.foreach(step, mx.sym.var("x"), mx.sym.var("state"))
    with pytest.raises(ValueError, match=r"symbol: expected no recurrent layer inside a loop, got"):
        fastrnn.portable(output)


@needs_native
def test_a_reserve_as_an_output_is_refused():
    layer = fastrnn.GRU(2, input_size=3)
    internals = with_reserves(layer(mx.sym.var("x"))).get_internals()
    with pytest.raises(ValueError, match="expected no use of a recurrent layer's reserve"):
        fastrnn.portable(internals)


def test_what_is_no_symbol_is_refused():
    with pytest.raises(TypeError, match="symbol: expected an MXNet symbol, got str"):
        fastrnn.portable("net-symbol.json")


@needs_native
@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("used", [False, True])
def test_a_stack_with_states_in_either_numpy_mode(traced, used):
    with mx.util.np_shape(traced):
        first, second = (fastrnn.GRU(5, 2, input_size=size) for size in (4, 5))
        x, h = mx.sym.var("x"), mx.sym.var("h")
        output, after = first(x, [h])
        output, _ = second(output, after)
    found = fastrnn.portable(output)
    names = [node["name"] for node in json.loads(found.tojson())["nodes"]]
    assert len(names) == len(set(names))
    with mx.util.np_shape(used):
        assert found.infer_shape(x=(3, 2, 4), h=(2, 2, 5))[1] == [(3, 2, 5)]
