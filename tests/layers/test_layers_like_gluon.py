"""What programs do with Gluon's layers has to work with ours."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import reference as ref
from cases import MODES, LayerCase, Parent, layer_class, mx

import fastrnn
from fastrnn.mxnet import native

# A parameter's type that changes behind the layer.


@pytest.mark.parametrize("nested", [False, True], ids=["layer", "parent"])
@pytest.mark.parametrize("hybrid", [False, True], ids=["eager", "hybridized"])
@pytest.mark.parametrize("dtype", ["float64", "float16"])
@pytest.mark.parametrize("mode", MODES)
def test_a_file_in_another_type(mode, dtype, hybrid, nested, tmp_path):
    case = LayerCase(mode, layers=2, dtype=dtype)
    path = str(tmp_path / "net.params")
    source, target = case.layer(), LayerCase(mode, layers=2, seed=1).layer()
    nets = [Parent(layer) if nested else layer for layer in (source, target)]
    nets[0].save_parameters(path)
    nets[1].hybridize(hybrid)
    nets[1].load_parameters(path, cast_dtype=True, dtype_source="saved")
    case.check(target, nets[1])
    if native.STATUS.usable:
        assert target.backend.name == "native"


@pytest.mark.parametrize("hybrid", [False, True], ids=["eager", "hybridized"])
@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_parameters_that_are_cast(dtype, hybrid):
    before, case = LayerCase(layers=2), LayerCase(layers=2, dtype=dtype)
    layer = before.layer()
    layer.hybridize(hybrid)
    before.check(layer)
    for parameter in layer.collect_params().values():
        parameter.cast(dtype)
    case.fill(layer)
    case.check(layer)
    for parameter in layer.collect_params().values():
        parameter.cast("float32")
    before.fill(layer)
    before.check(layer)


def test_a_traced_net_whose_parameters_are_cast_says_what_to_do(backend):
    if backend != "native":
        pytest.skip("MXNet's own operators take any type")
    case = LayerCase(layers=2)
    layer = case.layer()
    net = Parent(layer)
    net.hybridize()
    case.check(layer, net)
    for parameter in net.collect_params().values():
        parameter.cast("float64")
    twin = LayerCase(layers=2, dtype="float64")
    with pytest.raises(mx.MXNetError, match=r"traced in float32.*hybridize\(\) again"):
        net(*twin.arguments())[0].asnumpy()
    net.hybridize()
    twin.fill(layer)
    twin.check(layer, net)


# Devices.


@pytest.mark.parametrize("recording", [False, True])
@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("device", [mx.Context("cpu_shared", 0), mx.cpu_pinned(0)], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_arrays_of_mxnets_other_kinds_of_cpu(mode, device, lengths, recording, backend):
    case = LayerCase(mode, layers=2, lengths=lengths)
    layer = case.layer(backend)
    try:
        data = case.array(case.x, device)
    except mx.MXNetError as error:
        pytest.skip(f"MXNet has no {device} here: {error}")
    _, states, *row_lengths = case.arguments()
    with mx.autograd.record(recording) if recording else mx.autograd.pause():
        case.check_outcome(layer(data, states, *row_lengths))


@pytest.mark.parametrize("grad_req", ["write", "add"])
@pytest.mark.parametrize(
    "moved", ["l0_i2h_weight", "l1_h2h_weight", ""], ids=["first", "one", "all"]
)
def test_parameters_on_several_kinds_of_cpu(moved, grad_req, backend):
    case = LayerCase(layers=2)
    layers = [case.layer(backend), case.layer(backend)]
    device = mx.Context("cpu_shared", 0)
    for layer in layers:
        layer.collect_params().setattr("grad_req", grad_req)
    try:
        for parameter in layers[0].collect_params(f".*{moved}").values():
            parameter.reset_ctx(device)
    except mx.MXNetError as error:
        pytest.skip(f"MXNet has no {device} here: {error}")
    for layer in layers:
        for _ in range(2):
            with mx.autograd.record():
                output, _ = layer(*case.arguments())
            output.backward()
    for own, expected in zip(*(layer.collect_params().values() for layer in layers)):
        np.testing.assert_array_equal(own.list_grad()[0].asnumpy(), expected.grad().asnumpy())


def test_data_of_a_loader_with_workers(backend):
    case = LayerCase(layers=2, layout="NTC")
    layer = case.layer(backend)
    dataset = mx.gluon.data.ArrayDataset(np.float32(case.x.swapaxes(0, 1)))
    loader = mx.gluon.data.DataLoader(dataset, case.N, num_workers=1)
    _, states = case.arguments()
    for data in loader:
        case.check_outcome(layer(data, states))


def test_states_beside_data_on_another_cpu(backend):
    case = LayerCase(layers=2, lengths=True)
    layer = case.layer(backend)
    layer.collect_params().reset_ctx([mx.cpu(0), mx.cpu(1)])
    _, states, lengths = case.arguments()
    case.check_outcome(layer(case.array(case.x, mx.cpu(1)), states, lengths))


# Arguments of the constructor.


@pytest.mark.parametrize(
    "options", [{"dropout": False}, {"dropout": "0.25"}, {"dtype": None}, {"projection_size": 0}]
)
def test_options_that_gluon_takes(options, backend):
    case = LayerCase("lstm", layers=2)
    layer = case.layer(backend, **options)
    with mx.autograd.predict_mode():
        case.check_outcome(layer(*case.arguments()))
    case.check(layer, train_mode=False)


@pytest.mark.parametrize("rate", [1, 1.0, True, "1"])
@pytest.mark.parametrize("hybrid", [False, True], ids=["eager", "hybridized"])
def test_dropout_of_everything(rate, hybrid, backend):
    zeros = [np.zeros((4, 3, 6))]
    case = LayerCase("gru", layers=2, masks=zeros)
    layer = case.layer(backend, dropout=rate)
    layer.hybridize(hybrid)
    case.check_learning(layer)


@pytest.mark.parametrize("low, high", [(-0.2, None), (None, "0.1")])
def test_one_bound_of_clipping(low, high, backend):
    bounds = (-math.inf if low is None else low, math.inf if high is None else float(high))
    case = LayerCase("lstm", layers=2, clip=ref.Clip(*bounds))
    layer = case.layer(backend, state_clip_min=low, state_clip_max=high)
    case.check(layer)


# Names.


@pytest.mark.parametrize("layout", ["TNC", "NTC"])
@pytest.mark.parametrize("options", [{}, {"num_layers": 3, "bidirectional": True, "dropout": 0.5}])
@pytest.mark.parametrize("mode", MODES)
def test_a_graphs_names(mode, options, layout, backend):
    names = []
    for module in (mx.gluon.rnn, fastrnn):
        extra = {"backend": backend} if module is fastrnn else {}
        layer = layer_class(mode, module)(4, layout=layout, prefix="net_", **options, **extra)
        states = layer.begin_state(2, func=mx.sym.zeros)
        output, states = layer(mx.sym.var("data"), states)
        names.append([symbol.list_outputs() for symbol in (output, *states)])
        tapped = output.get_internals()["net_rnn0_output"]
        shape = (5, 2, 3) if layout == "TNC" else (2, 5, 3)
        assert tapped.infer_shape(data=shape)[1][0][:2] == (5, 2)
    assert names[0] == names[1]


@pytest.mark.parametrize("mode", MODES)
def test_an_exported_graphs_names(mode, backend, tmp_path):
    outputs = []
    for module in (mx.gluon.rnn, fastrnn):
        extra = {"backend": backend} if module is fastrnn else {}
        layer = layer_class(mode, module)(4, 2, bidirectional=True, prefix="net_", **extra)
        layer.initialize()
        layer.hybridize()
        layer(mx.nd.ones((5, 2, 3)), layer.begin_state(2))
        layer.export(str(tmp_path / "net"))
        outputs.append(mx.sym.load(str(tmp_path / "net-symbol.json")).list_outputs())
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("mode", MODES)
def test_mxnets_drawings(mode, backend):
    pytest.importorskip("graphviz")
    net = mx.gluon.nn.HybridSequential()
    net.add(layer_class(mode)(4, 2, backend=backend), mx.gluon.nn.Dense(2))
    symbol = net(mx.sym.var("data"))
    drawing = mx.viz.plot_network(symbol, shape={"data": (5, 3, 2)})
    assert "3x4" in drawing.source


def test_attributes_of_a_scope_are_on_the_operator(backend):
    if backend != "native":
        pytest.skip("MXNet sees to its own")
    layer = fastrnn.LSTM(4, 2, dropout=0.5)
    with mx.AttrScope(ctx_group="dev1"):
        nodes = json.loads(layer(mx.sym.var("data")).tojson())["nodes"]
    operators = [node for node in nodes if node["op"] == fastrnn.mxnet.native.GRAPH_OPERATOR]
    assert [node["attrs"]["__ctx_group__"] for node in operators] == ["dev1"] * 2


# Ours in the place of Gluon's class.

_SWAP = """
import fastrnn, mxnet as mx
from mxnet.gluon.rnn import rnn_layer
for name in ("LSTM", "GRU", "RNN"):
    setattr(rnn_layer, name, getattr(fastrnn, name))
from mxnet.gluon.rnn.rnn_layer import GRU, LSTM, RNN
for layer in (LSTM(4, 2), GRU(4, num_layers=2, bidirectional=True), RNN(4, 1, "tanh", "NTC")):
    assert type(layer).__module__ == "fastrnn.layers"
    layer.initialize()
    x = mx.nd.ones((5, 3, 2))
    with mx.autograd.record():
        output, states = layer(x, layer.begin_state(5 if layer._layout == "NTC" else 3))
    output.backward()
    layer.cast("float64")
    print(type(layer).__name__, output.shape, layer(x.astype("float64")).dtype.__name__)
class Own(LSTM):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
print(Own(4))
"""


def test_put_in_the_place_of_gluons_class():
    ran = subprocess.run([sys.executable, "-c", _SWAP], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [
        "LSTM (5, 3, 4) float64",
        "GRU (5, 3, 8) float64",
        "RNN (5, 3, 4) float64",
        "Own(None -> 4, TNC)",
    ]


# Batches of no rows.


@pytest.mark.parametrize("layout", ["TNC", "NTC"])
@pytest.mark.parametrize("hybrid", [False, True], ids=["eager", "hybridized"])
@pytest.mark.parametrize("mode", MODES)
def test_no_rows(mode, hybrid, layout, backend):
    options = {"layout": layout, "bidirectional": True, "input_size": 3}
    mx.util.set_np()
    try:
        layer = layer_class(mode)(4, 2, backend=backend, **options)
        layer.initialize()
        layer.hybridize(hybrid)
        shape = (5, 0, 3) if layout == "TNC" else (0, 5, 3)
        output, states = layer(mx.np.zeros(shape), layer.begin_state(0))
        assert output.shape == (*shape[:2], 8)
        assert [state.shape for state in states] == [(4, 0, 4)] * len(states)
        with mx.autograd.record():
            output = layer(mx.np.zeros(shape))
            loss = output.sum()
        loss.backward()
        assert not layer.l0_i2h_weight.grad().asnumpy().any()
        assert layer(mx.np.zeros((5, 2, 3))).shape == (5, 2, 8)
    finally:
        mx.util.reset_np()
