"""Gluon's layers replaced by fastrnn's, in models that exist and in code that makes them."""

from __future__ import annotations

import copy
import json
import pickle
import threading

import numpy as np
import pytest

import fastrnn
from fastrnn.mxnet import import_mxnet, native

mx = import_mxnet()
gluon = mx.gluon


class Model(gluon.nn.HybridSequential):
    """Embedding, recurrent layers and decoder, the same in each test."""

    def __init__(self, *layers, prefix=None):
        super().__init__(prefix=prefix)
        layers = layers or (gluon.rnn.LSTM(5, 2, bidirectional=True), gluon.rnn.GRU(6))
        self.add(gluon.nn.Embedding(10, 7), *layers, gluon.nn.Dense(3, flatten=False))
        self.initialize(mx.init.Xavier())


class Derived(gluon.rnn.LSTM):
    pass


@pytest.fixture
def x():
    return mx.nd.array(np.random.RandomState(0).randint(0, 10, (4, 3)))


def train(net, trainer, x, steps=3):
    for _ in range(steps):
        with mx.autograd.record():
            loss = (net(x) ** 2).sum()
        loss.backward()
        trainer.step(3)
    return {
        name: (p.data().asnumpy(), p.grad().asnumpy())
        for name, p in net._collect_params_with_prefix().items()
    }


@pytest.mark.parametrize("hybridized", [False, True])
def test_a_model_trains_as_before(x, hybridized):
    nets, results = [Model(), Model()], []
    for net in nets:
        mx.random.seed(1)
        net.initialize(mx.init.Xavier(), force_reinit=True)
        if hybridized:
            net.hybridize()
        net(x)  # traces
        trainer = gluon.Trainer(net.collect_params(), "adam")
        if net is nets[1]:
            report = fastrnn.accelerate(net)
        results.append(train(net, trainer, x))
    assert [r.path for r in report.replaced] == ["1", "2"]
    assert not report.left
    for name, (value, gradient) in results[0].items():
        np.testing.assert_allclose(results[1][name][0], value, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(results[1][name][1], gradient, rtol=1e-4, atol=1e-6)


def test_the_layers_stay_the_same_objects_with_the_same_parameters(x):
    net = Model()
    net(x)
    layer, parameters = net[1], dict(net.collect_params())
    fastrnn.accelerate(net)
    assert net[1] is layer
    assert type(layer) is fastrnn.LSTM
    assert dict(net.collect_params()).keys() == parameters.keys()
    assert all(net.collect_params()[name] is p for name, p in parameters.items())


def operators(net):
    return [node["op"] for node in json.loads(net._cached_graph[1].tojson())["nodes"]]


def test_a_graph_that_was_traced_is_traced_again(x):
    net = Model()
    net.hybridize()
    net(x)
    assert operators(net).count("RNN") == 2
    report = fastrnn.accelerate(net)
    net(x)
    native = report.replaced[0].backend.startswith("native")
    assert ("_fastrnn_rnn" in operators(net), "RNN" in operators(net)) == (native, not native)
    fastrnn.restore(net)
    net(x)
    assert operators(net).count("RNN") == 2


def test_restore_leaves_layers_as_they_were(x):
    net = Model(gluon.rnn.LSTM(5), gluon.rnn.RNN(4, activation="tanh"))
    before, output = [dict(vars(net[k])) for k in (1, 2)], net(x).asnumpy()
    fastrnn.accelerate(net)
    report = fastrnn.restore(net)
    assert [r.path for r in report.replaced] == ["1", "2"]
    assert [type(net[k]) for k in (1, 2)] == [gluon.rnn.LSTM, gluon.rnn.RNN]
    for k, attributes in zip((1, 2), before):
        assert vars(net[k]).keys() == attributes.keys()
    np.testing.assert_array_equal(net(x).asnumpy(), output)
    assert not fastrnn.restore(net).replaced


def test_restore_leaves_layers_that_were_made_as_fastrnns():
    net = Model(gluon.rnn.GRU(4), fastrnn.LSTM(5))
    assert fastrnn.accelerate(net).left == [("2", "LSTM", "it is fastrnn's already")]
    report = fastrnn.restore(net)
    assert [type(net[k]) for k in (1, 2)] == [gluon.rnn.GRU, fastrnn.LSTM]
    assert report.left == [("2", "LSTM", "it was made as fastrnn's")]


def test_what_is_left_and_why(x, tmp_path):
    net = Model()
    net.hybridize()
    net(x)
    net.export(str(tmp_path / "net"))
    files = [str(tmp_path / name) for name in ("net-symbol.json", "net-0000.params")]
    imported = gluon.SymbolBlock.imports(files[0], ["data"], files[1])
    dense = gluon.SymbolBlock(mx.sym.var("a") + 1, mx.sym.var("a"))
    blocks = gluon.nn.Sequential()
    blocks.add(
        Derived(4), gluon.rnn.RNNCell(4, activation="softsign"), imported, dense, gluon.nn.Dense(2)
    )
    report = fastrnn.accelerate(blocks)
    assert not report.replaced
    assert report.left == [
        ("0", "Derived", "its class is derived from LSTM and may change what that does"),
        ("1", "RNNCell", "no layer has its activation"),
        ("2", "SymbolBlock", "an imported graph is fixed"),
    ]
    assert str(report).splitlines()[1] == "1: RNNCell, left; no layer has its activation"


def test_a_layer_that_the_backend_cannot_run_is_left_as_it_was(monkeypatch):
    monkeypatch.setattr(native, "STATUS", native.STATUS._replace(types=("float32",)))
    layer = gluon.rnn.LSTM(4, state_clip_min=-1, state_clip_max=1, dtype="float64")
    before = dict(vars(layer))
    report = fastrnn.accelerate(layer, backend="native")
    assert [(left.path, left.kind) for left in report.left] == [("", "LSTM")]
    assert "backend=native" in report.left[0].reason
    assert type(layer) is gluon.rnn.LSTM
    assert vars(layer) == before


def test_clipping_is_gluons_again():
    layer = gluon.rnn.LSTM(4, state_clip_max=2)
    before = vars(layer)["_lstm_state_clip_min"], vars(layer)["_lstm_state_clip_max"]
    assert fastrnn.accelerate(layer).replaced
    assert layer._cell.clip_max == 2
    fastrnn.restore(layer)
    assert (layer._lstm_state_clip_min, layer._lstm_state_clip_max) == before


def test_the_type_is_that_of_the_parameters():
    layer = gluon.rnn.GRU(4, input_size=3)
    layer.cast("float64")
    layer.initialize()
    fastrnn.accelerate(layer)
    assert layer(mx.nd.ones((2, 1, 3), dtype="float64")).dtype == np.float64


def test_a_layer_in_two_places_is_replaced_once(x):
    shared = gluon.rnn.RNN(7)
    net = Model(shared, shared)
    assert [r.path for r in fastrnn.accelerate(net).replaced] == ["1"]
    net(x)


def test_files_from_before_fit(x, tmp_path):
    net, other = Model(prefix="a_"), Model(prefix="b_")
    output = net(x).asnumpy()
    net.save_parameters(str(tmp_path / "parameters"))
    fastrnn.accelerate(other)
    other.load_parameters(str(tmp_path / "parameters"))
    np.testing.assert_allclose(other(x).asnumpy(), output, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_are_fastrnns_and_can_be_restored(copied):
    layer = gluon.rnn.LSTM(4, input_size=3)
    layer.initialize()
    fastrnn.accelerate(layer)
    twin = copied(layer)
    assert type(twin) is fastrnn.LSTM
    fastrnn.restore(twin)
    assert type(twin) is gluon.rnn.LSTM
    assert type(layer) is fastrnn.LSTM


def test_wrong_arguments():
    with pytest.raises(TypeError, match="net: expected a Gluon block, got int"):
        fastrnn.accelerate(1)
    with pytest.raises(TypeError, match="net: expected a Gluon block, got str"):
        fastrnn.restore("net")
    layer = gluon.rnn.LSTM(4)
    with pytest.raises(ValueError, match="backend: expected one of .*, got 'cuda'"):
        fastrnn.accelerate(layer, backend="cuda")
    assert type(layer) is gluon.rnn.LSTM


def test_within_the_context_gluons_names_make_fastrnns_layers(x):
    with fastrnn.accelerated():
        net = Model(gluon.rnn.LSTM(5, 2, "TNC", 0.0, True), gluon.rnn.RNN(4, activation="tanh"))
        derived = Derived(3)
        with fastrnn.accelerated():
            pass
        gru = gluon.rnn.GRU(4)
    assert [type(layer) for layer in (net[1], net[2], gru)] == [
        fastrnn.LSTM,
        fastrnn.RNN,
        fastrnn.GRU,
    ]
    assert (net[1]._num_layers, net[1]._dir) == (2, 2)
    assert type(derived) is Derived
    assert net(x).shape == (4, 3, 3)
    assert type(gluon.rnn.LSTM(4)) is gluon.rnn.LSTM


def test_an_error_ends_the_context():
    with pytest.raises(KeyError), fastrnn.accelerated():
        raise KeyError
    assert type(gluon.rnn.LSTM(4)) is gluon.rnn.LSTM


def test_other_threads_are_not_affected():
    made = []
    with fastrnn.accelerated():
        thread = threading.Thread(target=lambda: made.append(gluon.rnn.LSTM(4)))
        thread.start()
        thread.join()
    assert type(made[0]) is gluon.rnn.LSTM
