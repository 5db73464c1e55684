"""Zoneout and dropout of the state in the layers."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from typing import Any, Optional

import noise as noises
import numpy as np
import pytest
import reference as ref
from cases import ANY_SIZE, MODES, LayerCase, Parent, attach, mx
from hypothesis import given

import fastrnn
from fastrnn.kernels import Noise
from fastrnn.mxnet import native

SEED = 11
ALL = Noise(0.3, 0.4, 0.25)
needs_native = pytest.mark.skipif(not native.STATUS.usable, reason=native.STATUS.reason)


def for_mode(mode, noise):
    return noise if mode == "lstm" else noise._replace(zoneout_states=0)


@dataclass
class NoisyCase(LayerCase):
    """A training call of a native layer, whose masks MXNet's generator determines after SEED."""

    noise: Noise = ALL
    drawn: Optional[Any] = None  # what the oracle takes, if the native operator does not draw it

    def __post_init__(self):
        self.noise = for_mode(self.mode, self.noise)
        super().__post_init__()
        sizes = (self.T, self.N, self.H, self.projection or self.H)
        stack = {"directions": self.directions, "layers": self.layers}
        drawn = self.drawn or noises.drawn(self.noise, seed_of_mxnet(), sizes, **stack)
        self.result = ref.stack_forward(
            *(self.mode, self.x, self.h0, self.c0, self.weights),
            **{"directions": self.directions, "lengths": self.row_lengths, "clip": self.clip},
            noise=drawn,
        )
        self.gradients = ref.stack_backward(self.result, self.d_output, self.d_h, self.d_c)

    def layer(self, backend="auto", module=fastrnn, **options):
        rates = {name: rate for name, rate in self.noise._asdict().items() if rate}
        return super().layer(backend, module, **rates, **options)

    def check_recorded(self, *arguments):
        mx.random.seed(SEED)
        super().check_recorded(*arguments)


def seed_of_mxnet():
    """Return the seed that a layer gets from MXNet's generator."""
    mx.random.seed(SEED)
    with mx.autograd.train_mode():
        bits = mx.nd.Dropout(mx.nd.ones(64), p=0.5).asnumpy()
    assert set(bits) == {0, 2}
    return sum(int(bit > 0) << k for k, bit in enumerate(bits))


def net_of(layer, how):
    net = Parent(layer) if how == "parent" else layer
    net.hybridize(how != "eager", static_alloc=how == "parent")
    return net


@needs_native
@pytest.mark.parametrize("how", ["eager", "hybrid", "parent"])
@pytest.mark.parametrize("lengths", [False, True], ids=["whole", "ragged"])
@pytest.mark.parametrize("layers, directions", [(1, 1), (2, 2)])
@pytest.mark.parametrize("mode", MODES)
def test_results_and_gradients(mode, layers, directions, lengths, how):
    case = NoisyCase(mode, T=5, N=4, layers=layers, directions=directions, lengths=lengths)
    layer = case.layer("native")
    assert layer.backend.name == "native"
    net = net_of(layer, how)
    net(*case.arguments())  # a graph that is traced outside training is for training too
    for _ in range(2):
        case.check_learning(layer, net)
    mx.random.seed(SEED)
    with mx.autograd.train_mode():  # not recorded
        case.check_outcome(net(*case.arguments()))


@needs_native
@given(**ANY_SIZE)
def test_any_size(mode, T, N, H, directions, seed):
    # Of one unit, a gradient is one number, and may be a sum that cancels.
    case = NoisyCase(mode, T, N, H=H + 1, layers=2, directions=directions, seed=seed)
    case.check_learning(case.layer("native"))


@needs_native
@pytest.mark.parametrize("how", ["eager", "parent"])
@pytest.mark.parametrize(
    "option",
    [{"projection": 4}, {"clip": ref.Clip(-0.2, 0.3)}, {"layout": "NTC"}, {"states": False}],
    ids=str,
)
def test_with_other_options(option, how):
    case = NoisyCase("lstm", T=5, N=4, layers=2, directions=2, **option)
    layer = case.layer("native")
    case.check_learning(layer, net_of(layer, how))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("lengths", [False, True], ids=["whole", "ragged"])
@pytest.mark.parametrize("how", ["eager", "parent"])
@pytest.mark.parametrize("mode", MODES)
def test_outside_of_training_states_are_means(mode, how, lengths, dtype, backend):
    if backend == "native" and dtype not in native.STATUS.types:
        pytest.skip(f"the native operator does not cover {dtype}")
    noise = for_mode(mode, ALL)
    means = [ref.Noise(noise.zoneout_outputs, noise.zoneout_states)] * 4
    sizes = {"layers": 2, "directions": 2, "lengths": lengths, "dtype": dtype}
    case = NoisyCase(mode, T=5, N=4, **sizes, drawn=means)
    layer = case.layer(backend)
    assert layer.backend.name == backend
    case.check(layer, net_of(layer, how), train_mode=False)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("how", ["eager", "parent"])
@pytest.mark.parametrize("noise", [Noise(0.4), Noise(0, 0.4), Noise(0, 0, 0.4)], ids=str)
@pytest.mark.parametrize("lengths", [False, True], ids=["whole", "ragged"])
def test_on_mxnets_operators(noise, how, lengths, dtype):
    T, N, H, rate = 5, 4, 6, 0.4
    read = bool(noise.drop_states)
    mx.random.seed(SEED)
    with mx.autograd.train_mode():
        ones = mx.nd.ones((1 if read else T, N, H), dtype=dtype)
        left = mx.nd.Dropout(ones, p=rate).asnumpy().astype(np.float64)
    kept = (left == 0).astype(np.float64)
    drawn = ref.Noise(read=left[0]) if read else ref.Noise(*(r > 0 and kept for r in noise[:2]))
    case = NoisyCase(T=T, N=N, H=H, lengths=lengths, noise=noise, dtype=dtype, drawn=[drawn])
    layer = case.layer("gluon")
    assert layer.backend.name == "gluon"
    case.check_learning(layer, net_of(layer, how))


@pytest.mark.parametrize("how", ["eager", "parent"])
@pytest.mark.parametrize("all_of_them", [1, 1 - 1e-9], ids=str)  # both are 1 in float32
def test_keeping_everything(all_of_them, how, backend):
    case = LayerCase("lstm", layers=1, directions=2)
    layer = case.layer(backend, zoneout_outputs=all_of_them, zoneout_states=all_of_them)
    arguments = case.arguments()
    attach(arguments)
    with mx.autograd.record():
        output, states = net_of(layer, how)(*arguments)
    output.backward()
    for state, before in zip(states, (case.h0, case.c0)):
        ref.assert_close(state, before)
    for time in range(case.T):
        ref.assert_close(output[time], np.concatenate(list(case.h0), axis=1))
    ref.assert_close(arguments[1][0].grad, case.T * np.ones_like(case.h0))
    assert not any(p.grad().asnumpy().any() for p in layer.collect_params().values())


@needs_native
@pytest.mark.parametrize("hybrid", [False, True], ids=["eager", "parent"])
def test_gradients_that_are_added(hybrid):
    case = NoisyCase(layers=2)
    layer = case.layer("native")
    layer.collect_params().setattr("grad_req", "add")
    layer.collect_params().zero_grad()
    arguments = case.arguments()
    attach(arguments, "add")
    net = net_of(layer, "parent" if hybrid else "eager")
    for _ in range(2):
        mx.random.seed(SEED)
        with mx.autograd.record():
            outcome = net(*arguments)
        case.backward(outcome)
    case.check_gradients(layer, arguments, times=2)


@needs_native
@pytest.mark.parametrize("hybrid", [False, True], ids=["eager", "parent"])
def test_all_that_is_drawn_is_drawn_in_one_order(hybrid):
    case = LayerCase(layers=2, directions=2)
    rates = {"weight_dropout": 0.3, "drop_inputs": 0.2, "drop_outputs": 0.2, "dropout": 0.3}
    layer = case.layer("native", **rates, **ALL._asdict())
    net = net_of(layer, "parent" if hybrid else "eager")
    net(*case.arguments())

    def output(run):
        mx.random.seed(SEED)
        with run():
            return net(*case.arguments())[0].asnumpy()

    first = output(mx.autograd.record)
    np.testing.assert_array_equal(first, output(mx.autograd.record))
    np.testing.assert_allclose(first, output(mx.autograd.train_mode), rtol=1e-5, atol=1e-6)
    assert (first != layer(*case.arguments())[0].asnumpy()).any()


def test_copies_draw_the_same(backend):
    case = LayerCase(layers=2)
    layer = case.layer(backend, **ALL._asdict())

    def output(net):
        mx.random.seed(SEED)
        with mx.autograd.train_mode():
            return net(*case.arguments())[0].asnumpy()

    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        np.testing.assert_array_equal(output(other), output(layer))


@needs_native
def test_exported_and_imported(tmp_path):
    case = NoisyCase("gru", layers=2)
    net = net_of(case.layer("native"), "parent")
    x, states = case.arguments()
    net(x, states)
    net.export(str(tmp_path / "net"))
    names = ["data0", "data1"]
    parameters = str(tmp_path / "net-0000.params")
    block = mx.gluon.SymbolBlock.imports(str(tmp_path / "net-symbol.json"), names, parameters)
    mx.random.seed(SEED)
    with mx.autograd.train_mode():
        output, *after = block(x, *states)
    case.check_outcome((output, after))
    graph = fastrnn.portable(mx.sym.load(str(tmp_path / "net-symbol.json")))
    plain = mx.gluon.SymbolBlock(graph, [mx.sym.var(name) for name in names])
    plain.load_parameters(parameters, cast_dtype=True, allow_missing=True)
    for mine, portable in zip(block(x, *states), plain(x, *states)):
        np.testing.assert_allclose(mine.asnumpy(), portable.asnumpy(), rtol=1e-5, atol=1e-6)
    with mx.autograd.train_mode():
        assert (plain(x, *states)[0].asnumpy() != plain(x, *states)[0].asnumpy()).any()


@needs_native
@pytest.mark.parametrize("rate", ["zoneout_outputs", "drop_states"])
def test_onnx(rate, tmp_path):
    pytest.importorskip("onnx", reason="without onnx")
    onnxruntime = pytest.importorskip("onnxruntime", reason="without onnxruntime")
    case = LayerCase("gru", layers=2, states=False)
    net = net_of(case.layer(**{rate: 0.5}), "parent")
    (x,) = case.arguments()
    expected = net(x).asnumpy()
    net.export(str(tmp_path / "net"))
    files = [str(tmp_path / name) for name in ("net-symbol.json", "net-0000.params", "net.onnx")]

    def export():
        mx.onnx.export_model(*files[:2], [x.shape], [np.float32], files[2])

    if rate != "drop_states":
        with pytest.raises(ValueError, match="expected a layer without zoneout"):
            export()
        return
    export()
    session = onnxruntime.InferenceSession(files[2])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.asnumpy()})
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="zoneout_states: expected 0 for GRU.*got 0.1"):
        fastrnn.GRU(3, zoneout_states=0.1)
    for name in Noise._fields:
        with pytest.raises(ValueError, match=f"{name}: expected a probability.*got 1.5"):
            fastrnn.LSTM(3, **{name: 1.5})
    layer = fastrnn.LSTM(3, zoneout_outputs=0.1, backend="gluon")
    assert repr(layer).endswith(", zoneout_outputs=0.1)")
    with pytest.raises(ValueError, match="static_shape: expected False"):
        layer.hybridize(static_shape=True)
