"""A layer takes the place of MXNet's: class, parameters, files, copies, and which backend runs."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from cases import MODES, LayerCase, mx

import fastrnn
from fastrnn.check import verdict
from fastrnn.mxnet import native

PAIRS = [(fastrnn.LSTM, "LSTM"), (fastrnn.GRU, "GRU"), (fastrnn.RNN, "RNN")]


@pytest.mark.parametrize("ours, name", PAIRS)
def test_it_is_mxnets_layer_to_whoever_asks(ours, name):
    theirs = getattr(mx.gluon.rnn, name)
    assert issubclass(ours, theirs)
    options = {"num_layers": 2, "bidirectional": True, "input_size": 3, "dropout": 0.5}
    a, b = ours(4, prefix="net_", **options), theirs(4, prefix="net_", **options)
    assert repr(a) == repr(b)
    assert list(a.collect_params()) == list(b.collect_params())
    assert [p.shape for p in a.collect_params().values()] == [
        p.shape for p in b.collect_params().values()
    ]
    assert a.state_info(7) == b.state_info(7)
    assert a.begin_state(7)[0].shape == b.begin_state(7)[0].shape
    assert ours(4).prefix.startswith(name.lower())


@pytest.mark.parametrize("ours, name", PAIRS)
def test_the_initial_parameters_are_the_same(ours, name):
    values = []
    for layer_type in (ours, getattr(mx.gluon.rnn, name)):
        mx.random.seed(3)
        layer = layer_type(4, 2, input_size=3)
        layer.initialize(mx.init.Xavier())
        values.append([p.data().asnumpy() for p in layer.collect_params().values()])
    for ours_, theirs in zip(*values):
        np.testing.assert_array_equal(ours_, theirs)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("mode", MODES)
def test_parameter_files_go_both_ways(mode, directions, backend, tmp_path):
    case = LayerCase(mode, layers=3, directions=directions)
    ours, theirs = case.layer(backend), case.layer(module=mx.gluon.rnn)
    blank = LayerCase(mode, layers=3, directions=directions, seed=1)
    for source, target in [
        (ours, blank.layer(module=mx.gluon.rnn)),
        (theirs, blank.layer(backend)),
    ]:
        source.save_parameters(str(tmp_path / "layer.params"))
        target.load_parameters(str(tmp_path / "layer.params"))
        case.check_outcome(target(*case.arguments()))
        source.collect_params().save(str(tmp_path / "dict.params"), strip_prefix=source.prefix)
        target.collect_params().load(str(tmp_path / "dict.params"), restore_prefix=target.prefix)
        case.check_outcome(target(*case.arguments()))


@pytest.mark.parametrize("directions", [1, 2])
def test_more_than_ten_layers_are_saved_and_loaded(directions, backend, tmp_path):
    case = LayerCase("gru", T=2, layers=13, directions=directions)
    net = mx.gluon.nn.HybridSequential()
    net.add(case.layer(backend))
    net.save_parameters(str(tmp_path / "net.params"))
    other = mx.gluon.nn.HybridSequential()
    other.add(LayerCase("gru", T=2, layers=13, directions=directions, seed=5).layer(backend))
    other.load_parameters(str(tmp_path / "net.params"))
    case.check_outcome(other[0](*case.arguments()))


@pytest.mark.parametrize("hybrid", [False, True], ids=["eager", "hybridized"])
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
def test_copies(duplicate, hybrid, used, backend):
    case = LayerCase(layers=2)
    layer = case.layer(backend)
    layer.hybridize(hybrid)
    if used:
        case.check(layer)
    twin = duplicate(layer)
    case.check_outcome(twin(*case.arguments()))
    assert twin.backend == layer.backend
    twin.l0_i2h_weight.set_data(mx.nd.zeros_like(twin.l0_i2h_weight.data()))
    case.check_outcome(layer(*case.arguments()))


def test_parameters_shared_between_layers(backend):
    case = LayerCase("gru", layers=2)
    layer = case.layer(backend)
    twin = fastrnn.GRU(case.H, 2, input_size=case.I, params=layer.params, backend=backend)
    case.check(layer, twin)


def test_names_within_a_block(backend):
    class Net(mx.gluon.HybridBlock):
        def __init__(self):
            super().__init__(prefix="net_")
            with self.name_scope():
                self.first = fastrnn.LSTM(4, backend=backend)
                self.second = fastrnn.LSTM(4, backend=backend)

    names = list(Net().collect_params())
    assert names[0] == "net_lstm0_l0_i2h_weight"
    assert names[4] == "net_lstm1_l0_i2h_weight"


def test_unfused_cells_compute_the_same(backend):
    case = LayerCase("gru", T=4, layers=2, layout="NTC")
    layer = case.layer(backend)
    x, (state,) = case.arguments()
    cells = layer._unfuse()
    output, _ = cells.unroll(case.T, x, [state[0], state[1]], layout="NTC", merge_outputs=True)
    np.testing.assert_allclose(output.asnumpy(), layer(x, state)[0].asnumpy(), 1e-4, 1e-6)


@pytest.mark.parametrize("name", ["weight_dropout", "zoneout_outputs", "layer_norm"])
def test_a_layer_that_mxnets_cells_cannot_compute_is_not_unfused(name):
    layer = fastrnn.LSTM(4, input_size=3, **{name: True if name == "layer_norm" else 0.5})
    with pytest.raises(ValueError, match=f"{name}: expected none, as MXNet's cells ignore it"):
        layer._unfuse()


def test_summary(backend, capsys):
    case = LayerCase(layers=2)
    case.layer(backend).summary(*case.arguments())
    assert "LSTM-1" in capsys.readouterr().out


# Backends.


def test_the_backend_before_and_after_the_first_call(backend):
    case = LayerCase()
    layer = case.layer(backend)
    before = layer.backend
    assert before.name == backend
    assert str(before) == f"{backend}: {before.reason}"
    layer(*case.arguments())
    assert layer.backend == before
    with pytest.raises(AttributeError):
        before.name = "other"


def test_the_environment_chooses_where_the_argument_does_not(backend, monkeypatch):
    monkeypatch.setenv("FASTRNN_BACKEND", backend)
    assert fastrnn.LSTM(4).backend.name == backend
    monkeypatch.setenv("FASTRNN_BACKEND", "gluon")
    assert fastrnn.LSTM(4, backend=backend).backend.name == backend
    assert "FASTRNN_BACKEND=gluon" in fastrnn.LSTM(4).backend.reason
    assert "backend=gluon" in fastrnn.LSTM(4, backend="gluon").backend.reason
    monkeypatch.setenv("FASTRNN_BACKEND", "fast")
    with pytest.raises(ValueError, match="FASTRNN_BACKEND: expected one of .*got 'fast'"):
        fastrnn.LSTM(4)


def test_the_reason_names_the_type(monkeypatch):
    monkeypatch.setattr(native, "STATUS", native.Status(True, "as if", ("float32",)))
    backend = fastrnn.LSTM(4, dtype="float64").backend
    assert backend.name == "gluon"
    assert "does not cover dtype=float64" in backend.reason
    with pytest.raises(ValueError, match="backend=native: .*dtype=float64"):
        fastrnn.LSTM(4, dtype="float64", backend="native")


def test_on_a_gpu_auto_asks_for_the_verdict_on_the_layers_kind(monkeypatch):
    asked = []

    def obstacle(kind, *_):
        asked.append(kind[4:])
        return "as if it had failed" if any(kind[4:]) else None

    monkeypatch.setattr(native, "STATUS", native.Status(True, "as if", ("float32",)))
    monkeypatch.setattr(native, "ON_CUDA", True)
    monkeypatch.setattr(verdict, "obstacle", obstacle)
    options = {"projection_size": 2}, {"state_clip_max": 1}, {"drop_states": 0.1}
    options += {"zoneout_outputs": 0.1}, {"zoneout_states": 0.1}, {"layer_norm": True}
    for option in options:
        assert fastrnn.LSTM(4, **option).backend.reason.startswith("as if it had failed; ")
        assert fastrnn.LSTM(4, backend="native", **option).backend.name == "native"
    # projected, clipped, noise, layer_norm
    kinds = [tuple(k == of for k in range(4)) for of in (0, 1, 2, 2, 2, 3)]
    assert asked == kinds
    for option in ({}, {"state_clip_min": -np.inf, "state_clip_max": np.inf}):
        assert fastrnn.LSTM(4, **option).backend.name == "native"


def test_without_the_operator_layers_are_gluons_and_say_why(monkeypatch):
    monkeypatch.setattr(native, "STATUS", native.Status(False, "the reason"))
    case = LayerCase()
    layer = case.layer()
    assert str(layer.backend).startswith("gluon: the reason")
    case.check(layer)
    with pytest.raises(ValueError, match="backend=native: the reason"):
        fastrnn.LSTM(4, backend="native")
    monkeypatch.setenv("FASTRNN_BACKEND", "native")
    with pytest.raises(ValueError, match="FASTRNN_BACKEND=native: the reason"):
        fastrnn.LSTM(4)


def test_a_copy_decides_anew(monkeypatch):
    packed = pickle.dumps(LayerCase().layer())
    monkeypatch.setattr(native, "STATUS", native.Status(False, "gone"))
    assert pickle.loads(packed).backend.reason.startswith("gone")


@pytest.mark.parametrize("mode", MODES)
def test_float16_where_mxnet_sees_a_gpu_is_left_to_it(mode, monkeypatch):
    monkeypatch.setattr(native, "STATUS", native.Status(False, "no CUDA kernels"))
    monkeypatch.setattr(native, "GPUS", 1)
    layer = LayerCase(mode, dtype="float16").layer()
    assert layer.backend.reason == "no CUDA kernels; MXNet's RNN operator"
    layer = LayerCase(mode, dtype="float16", lengths=True).layer()
    assert layer.backend.reason == "no CUDA kernels; plain operators, step by step"


@pytest.mark.parametrize("lengths", [False, True])
def test_float16_is_native_where_the_operator_has_it(lengths, monkeypatch):
    types = ("float32", "float16")
    monkeypatch.setattr(native, "STATUS", native.Status(True, "as if", types))
    monkeypatch.setattr(native, "GPUS", 1)
    layer = fastrnn.LSTM(4, dtype="float16", use_sequence_length=lengths)
    assert layer.backend.name == "native"
    assert "computed in float32" not in layer.backend.reason
