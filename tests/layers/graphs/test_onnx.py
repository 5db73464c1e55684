"""Layers in ONNX files that MXNet's exporter writes, run by onnxruntime."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import reference as ref
from cases import MODES, LayerCase, Parent, layer_class, mx

import fastrnn
from fastrnn.export import onnx as exporter
from fastrnn.mxnet import native

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx.mapping", reason="MXNet's exporter needs onnx below 1.19")
onnxruntime = pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.filterwarnings("ignore:.*is now deprecated:DeprecationWarning")
needs_native = pytest.mark.skipif(not native.STATUS.usable, reason=native.STATUS.reason)


def run(path, values):
    """Run a file on arrays; return its outputs by name."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # MXNet lists weights among the inputs
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, values)))


def outputs(symbol, found):
    """Return what a file computes in the order of the graph that it was made from."""
    names = symbol.list_outputs()
    for old, new in (("_state_output", "1"), ("_statecell_output", "2"), ("_output", "")):
        names = [name.replace(old, new) for name in names]
    return [found[name] for name in names]


def exported(net, arguments, folder, **options):
    """Export `net`, called with these arrays, through files; return what the ONNX file computes."""
    net.hybridize()
    net(*arguments)
    net.export(str(folder / "net"))
    files = [str(folder / "net-symbol.json"), str(folder / "net-0000.params")]
    symbol = mx.sym.load(files[0])
    flat = [a for part in arguments for a in (part if isinstance(part, list) else [part])]
    names = ["data"] if len(flat) == 1 else [f"data{k}" for k in range(len(flat))]
    values = dict(zip(names, flat))
    used = [values[name] for name in symbol.list_inputs() if name in values]
    path = str(folder / "net.onnx")
    mx.onnx.export_model(
        *files, [a.shape for a in used], [a.dtype for a in used], onnx_file_path=path, **options
    )
    return outputs(symbol, run(path, {name: a.asnumpy() for name, a in values.items()}))


def check(case, tmp_path, net=None, **options):
    output, *states = exported(net or case.layer(), case.arguments(), tmp_path, **options)
    case.check_outcome((output, states) if case.states else output)


@needs_native
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("mode", MODES)
def test_a_layer_with_states(mode, layers, directions, tmp_path):
    check(LayerCase(mode, layers=layers, directions=directions), tmp_path)


@needs_native
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("mode", MODES)
def test_rows_with_lengths(mode, directions, tmp_path):
    lengths = [4, 0, 1, 3]
    case = LayerCase(mode, N=4, layers=2, directions=directions, lengths=lengths, layout="NTC")
    check(case, tmp_path)


@needs_native
def test_float16_layers_that_compute_in_float32(tmp_path):
    check(LayerCase("gru", dtype="float16"), tmp_path)


@needs_native
@pytest.mark.parametrize("layout", ["TNC", "NTC"])
@pytest.mark.parametrize("mode", MODES)
def test_zeros_as_states(mode, layout, tmp_path):
    case = LayerCase(mode, layers=2, directions=2, layout=layout, states=False)
    check(case, tmp_path, Parent(case.layer()))


@needs_native
@pytest.mark.parametrize("rate", [0.5, 1])
def test_a_layer_that_drops_weights_and_sequences(rate, tmp_path):
    case = LayerCase(layers=2, directions=2)
    layer = case.layer(weight_dropout=rate, drop_inputs=rate, drop_outputs=rate)
    check(case, tmp_path, layer)


OPTIONS = [{"projection": 4}, {"clip": ref.Clip(-1, 1)}, {"layer_norm": True}]


@needs_native
@pytest.mark.parametrize("option", OPTIONS, ids=str)
def test_a_layer_that_onnx_does_not_have_is_an_error(option, tmp_path):
    with pytest.raises(ValueError, match="expected a layer without projection, clipping and"):
        check(LayerCase("lstm", **option), tmp_path)


@needs_native
def test_zeros_that_the_parent_makes_as_states(tmp_path):
    class Maker(Parent):
        def hybrid_forward(self, F, x):
            rows = case.N if F is mx.nd else 0
            return self.layer(x, self.layer.begin_state(rows, func=F.zeros))[0]

    case = LayerCase("gru", layers=2, states=False)
    check(case, tmp_path, Maker(case.layer()))


@needs_native
@pytest.mark.parametrize("mode", MODES)
def test_a_language_model_of_any_length(mode, tmp_path):
    nn, activation = mx.gluon.nn, {"activation": mode[4:]} if mode.startswith("rnn") else {}
    net = nn.HybridSequential()
    recurrent = layer_class(mode)(6, 2, dropout=0.5, **activation)
    net.add(nn.Embedding(11, 5), recurrent, nn.Dense(7, flatten=False))
    net.initialize(mx.init.Normal(0.5))
    exported(net, [mx.nd.array([[3, 1], [4, 1]])], tmp_path, dynamic=True)
    x = mx.nd.array(np.arange(15).reshape(5, 3) % 11)
    (found,) = run(str(tmp_path / "net.onnx"), {"data": x.asnumpy()}).values()
    ref.assert_close(found, net(x).asnumpy())


@needs_native
def test_a_layer_that_is_called_again(tmp_path):
    class Again(Parent):
        def hybrid_forward(self, F, x, state):
            for _ in range(3):
                output, (state,) = self.layer(x, [state])
            return output

    case = LayerCase("gru")
    x, (state,) = case.arguments()
    net = Again(case.layer())
    (found,) = exported(net, [x, state], tmp_path)
    ref.assert_close(found, net(x, state).asnumpy())


@pytest.mark.parametrize("mode, directions", [("lstm", 2), ("gru", 1), ("rnn_tanh", 1)])
def test_mxnets_own_operator(mode, directions, tmp_path):
    case = LayerCase(mode, directions=directions)
    check(case, tmp_path, case.layer(module=mx.gluon.rnn))
    case = LayerCase(mode, I=6, layers=3 - directions)
    check(case, tmp_path, case.layer("gluon"))


def test_without_onnx_there_is_nothing_to_register(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setattr(exporter._exporter, "registry_", {})
    exporter.register()
    assert not exporter._exporter.registry_
    assert fastrnn.LSTM(2, input_size=3).backend


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_a_constant_of_a_network_keeps_its_type(dtype, tmp_path):
    data = mx.sym.cast(mx.sym.var("data"), dtype=dtype)
    symbol = mx.sym.elemwise_add(data, mx.sym.full((2, 3), 7, dtype=dtype))
    path = str(tmp_path / "net.onnx")
    mx.onnx.export_model(symbol, {}, [(2, 3)], [np.float32], onnx_file_path=path)
    (found,) = run(path, {"data": np.ones((2, 3), np.float32)}).values()
    np.testing.assert_array_equal(found, np.full((2, 3), 8))
    assert found.dtype == dtype
