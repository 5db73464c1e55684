"""Layer-normalised LSTMs and GRUs."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import reference as ref
from cases import LayerCase, Parent, attach, mx

import fastrnn
from fastrnn.mxnet import native

MODES = tuple(ref.NORM_GATES)
on_both = pytest.mark.parametrize("mode", MODES)


def net_of(layer, how):
    net = Parent(layer) if how == "parent" else layer
    net.hybridize(how != "eager", static_alloc=how == "parent")
    return net


def stack(mode, **options):
    return LayerCase(mode, T=5, N=4, layers=2, directions=2, layer_norm=True, **options)


@pytest.mark.parametrize("how", ["eager", "hybrid", "parent"])
@pytest.mark.parametrize("lengths", [False, True], ids=["whole", "ragged"])
@on_both
def test_results_and_gradients(mode, lengths, how, backend):
    case = stack(mode, lengths=lengths)
    layer = case.layer(backend)
    assert layer.backend.name == backend
    net = net_of(layer, how)
    case.check(layer, net)
    case.check(layer, net)


@pytest.mark.parametrize("how", ["eager", "parent"])
@on_both
def test_one_layer_from_zero_states(mode, how, backend):
    case = LayerCase(mode, layout="NTC", layer_norm=True, states=False)
    layer = case.layer(backend)
    case.check(layer, net_of(layer, how))


@pytest.mark.parametrize("dtype", ["float64", "float16"])
@pytest.mark.parametrize("how", ["eager", "parent"])
@on_both
def test_other_types(mode, how, dtype, backend):
    case = LayerCase(mode, directions=2, dtype=dtype, layer_norm=True)
    layer = LayerCase(mode, directions=2, layer_norm=True).layer(backend)
    layer.cast(dtype)
    case.fill(layer)
    case.check(layer, net_of(layer, how))
    assert layer.backend.name == backend


@pytest.mark.parametrize("how", ["eager", "parent"])
@on_both
def test_padding_does_not_matter_even_if_it_is_nan(mode, how, backend):
    case = stack(mode, lengths=True)
    layer = case.layer(backend)
    past = np.arange(case.T)[:, np.newaxis] >= case.row_lengths
    arguments = case.arguments()
    values = arguments[0].asnumpy()
    values[past] = np.nan
    arguments[0] = case.array(values)
    attach(arguments)
    net = net_of(layer, how)
    with mx.autograd.record():
        outcome = net(*arguments)
    case.check_outcome(outcome)
    case.backward(outcome)
    case.check_gradients(layer, arguments)


@pytest.mark.parametrize("how", ["eager", "parent"])
def test_gradients_are_added(how, backend):
    case = stack("lstm")
    layer = case.layer(backend)
    layer.collect_params().setattr("grad_req", "add")
    net, arguments = net_of(layer, how), case.arguments()
    attach(arguments, "add")
    for _ in range(2):
        with mx.autograd.record():
            outcome = net(*arguments)
        case.backward(outcome)
    case.check_gradients(layer, arguments, times=2)


def test_parameters_begin_as_ones_and_zeros(tmp_path):
    layer = fastrnn.LSTM(4, bidirectional=True, layer_norm=True)
    layer.initialize(mx.init.Xavier())
    layer(mx.nd.ones((2, 3, 5)))
    for d in "lr":
        shapes = {"i2h_gamma": (16,), "h2h_gamma": (16,), "c_gamma": (4,), "c_beta": (4,)}
        for name, shape in shapes.items():
            values = getattr(layer, f"{d}0_{name}").data().asnumpy()
            assert values.shape == shape
            assert (values == (0 if name == "c_beta" else 1)).all()
    assert "layer_norm=True" in repr(layer)
    assert not any("c_" in name for name in fastrnn.GRU(4, layer_norm=True).collect_params())
    assert not any("gamma" in name for name in fastrnn.LSTM(4).collect_params())


@on_both
def test_files_copies_and_pickles(mode, tmp_path, backend):
    case = stack(mode)
    layer = case.layer(backend)
    case.check(layer)
    layer.save_parameters(str(tmp_path / "layer.params"))
    other = case.layer(backend)
    other.initialize(mx.init.One(), force_reinit=True)
    other.load_parameters(str(tmp_path / "layer.params"))
    for same in (other, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        case.check(same)


@on_both
def test_exported_imported_and_portable(mode, tmp_path, backend):
    case = stack(mode, lengths=True)
    layer = case.layer(backend)
    layer.hybridize()
    arguments = case.arguments()
    layer(*arguments)
    layer.export(str(tmp_path / "net"))
    path, params = str(tmp_path / "net-symbol.json"), str(tmp_path / "net-0000.params")
    names = [f"data{k}" for k in range(len(arguments[1]) + 2)]
    for written in (mx.sym.load(path), fastrnn.portable(mx.sym.load(path))):
        written.save(path)
        block = mx.gluon.SymbolBlock.imports(path, names, params)
        output, *last = block(arguments[0], *arguments[1], arguments[2])
        case.check_outcome((output, last))
    assert native.GRAPH_OPERATOR not in written.tojson()


def test_on_the_naive_engine(backend):
    code = (
        "import sys; from cases import LayerCase; "
        "case = LayerCase(layers=2, directions=2, layer_norm=True); "
        "layer = case.layer(sys.argv[1]); case.check(layer); layer.hybridize(); case.check(layer)"
    )
    variables = {**os.environ, "MXNET_ENGINE_TYPE": "NaiveEngine"}
    variables["PYTHONPATH"] = os.pathsep.join(sys.path)
    subprocess.run([sys.executable, "-c", code, backend], env=variables, check=True)


def test_what_has_none_is_named():
    with pytest.raises(TypeError, match="layer_norm: expected an LSTM or a GRU, got True for"):
        fastrnn.RNN(4, layer_norm=True)
    with pytest.raises(TypeError, match="layer_norm is 'yes', expected True or False"):
        fastrnn.LSTM(4, layer_norm="yes")
    with pytest.raises(ValueError, match="layer_norm: expected no projection_size with it, got 2"):
        fastrnn.LSTM(4, layer_norm=True, projection_size=2)
    with pytest.raises(ValueError, match="layer_norm: expected no state_clip_min and state_clip_m"):
        fastrnn.LSTM(4, layer_norm=True, state_clip_max=1)
    with pytest.raises(ValueError, match="layer_norm: expected no zoneout and no drop_states with"):
        fastrnn.GRU(4, layer_norm=True, zoneout_outputs=0.1)
