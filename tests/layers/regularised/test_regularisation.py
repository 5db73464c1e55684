"""Dropout of weights and of whole sequences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import reference as ref
from cases import ANY_SIZE, MODES, LayerCase, Parent, attach, mx
from hypothesis import given

import fastrnn
from fastrnn.mxnet import native

RATES = {"weight_dropout": 0.4, "drop_inputs": 0.3, "drop_outputs": 0.25}
SEED = 11
NORMALIZED = {"layer_norm": True}


@dataclass
class DroppedCase(LayerCase):
    """A training call of a layer with all kinds of dropout, whose masks MXNet draws after SEED."""

    rates: Any = None
    dropout: float = 0.0

    def __post_init__(self):
        self.rates = RATES if self.rates is None else self.rates
        super().__post_init__()
        first, weights, between, last = self._draw()
        masked = [w._replace(h2h_weight=w.h2h_weight * m) for w, m in zip(self.weights, weights)]
        result = ref.stack_forward(
            *(self.mode, self.x * first, self.h0, self.c0, masked),
            **{"directions": self.directions, "lengths": self.row_lengths, "clip": self.clip},
            masks=between,
        )
        found = ref.stack_backward(result, self.d_output * last, self.d_h, self.d_c)
        self.result = result._replace(output=result.output * last)
        self.gradients = found._replace(
            x=found.x * first,
            weights=[
                w._replace(h2h_weight=w.h2h_weight * m) for w, m in zip(found.weights, weights)
            ],
        )

    def _draw(self):
        """Return the masks of the input, of the weights, between layers, and of the output."""
        kind = "float64" if self.dtype == "float64" else "float32"
        outputs = (self.projection or self.H) * self.directions

        def mask(shape, rate, axes=()):
            if not rate:
                return np.ones(shape)
            drawn = mx.nd.Dropout(mx.nd.ones(shape, dtype=kind), p=rate, axes=axes)
            return drawn.asnumpy().astype(np.float64)

        steps = (self.T, self.N)
        inputs, weights, after, between = [], [], [], []
        mx.random.seed(SEED)
        with mx.autograd.train_mode():
            for k in range(self.layers):
                if k:
                    between.append(mask((*steps, outputs), self.dropout))
                size = outputs if k else self.I
                inputs.append(mask((*steps, size), self.rates.get("drop_inputs"), (0,)))
                for w in self.weights[k * self.directions :][: self.directions]:
                    weights.append(mask(w.h2h_weight.shape, self.rates.get("weight_dropout")))
                after.append(mask((*steps, outputs), self.rates.get("drop_outputs"), (0,)))
        between = [a * b * c for a, b, c in zip(after, between, inputs[1:])]
        return inputs[0], weights, between, after[-1]

    def layer(self, backend="auto", module=fastrnn, **options):
        return super().layer(backend, module, dropout=self.dropout, **self.rates, **options)

    def check_recorded(self, *arguments):
        mx.random.seed(SEED)
        super().check_recorded(*arguments)


def net_of(layer, how):
    net = Parent(layer) if how == "parent" else layer
    net.hybridize(how != "eager", static_alloc=how == "parent")
    return net


@pytest.mark.parametrize("how", ["eager", "hybrid", "parent"])
@pytest.mark.parametrize("layout", ["TNC", "NTC"])
@pytest.mark.parametrize("lengths", [False, True], ids=["whole", "ragged"])
@pytest.mark.parametrize("layers, directions", [(1, 1), (2, 2)])
@pytest.mark.parametrize("mode", MODES)
def test_results_and_gradients(mode, layers, directions, lengths, layout, how, backend):
    sizes = {"layers": layers, "directions": directions, "lengths": lengths, "layout": layout}
    case = DroppedCase(mode, T=5, N=4, **sizes, dropout=0.3)
    layer = case.layer(backend)
    assert layer.backend.name == backend
    net = net_of(layer, how)
    net(*case.arguments())  # a graph that is traced outside training is for training too
    for _ in range(2):
        case.check_learning(layer, net)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("how", ["eager", "parent"])
def test_each_kind_alone(rate, how, backend):
    case = DroppedCase(layers=2, rates={rate: 0.5}, states=False)
    layer = case.layer(backend)
    case.check_learning(layer, net_of(layer, how))


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("option", [{}, {"lengths": True}, {"projection": 4}, NORMALIZED], ids=str)
@pytest.mark.parametrize("how", ["eager", "parent"])
def test_other_types_and_projections(how, option, dtype):
    case = DroppedCase(layers=2, directions=2, dtype=dtype, **option)
    layer = case.layer()
    case.check_learning(layer, net_of(layer, how))


@given(**ANY_SIZE)
def test_any_size(backend, mode, T, N, H, directions, seed):
    case = DroppedCase(mode, T, N, H=H, layers=2, directions=directions, seed=seed)
    case.check_learning(case.layer(backend))


@pytest.mark.parametrize("how", ["eager", "hybrid", "parent"])
@pytest.mark.parametrize("rate", [0.5, 1])
def test_outside_training_it_is_the_plain_layer(rate, how, backend):
    case = LayerCase("gru", layers=2, directions=2)
    layer = case.layer(backend, dropout=rate, **dict.fromkeys(RATES, rate))
    case.check(layer, net_of(layer, how), train_mode=False)


@pytest.mark.parametrize("how", ["eager", "parent"])
@pytest.mark.parametrize("all_of_them", [1, 1 - 1e-9], ids=str)  # both are 1 in float32
@pytest.mark.parametrize("rate", RATES)
def test_dropping_everything(rate, all_of_them, how, backend):
    case = LayerCase("gru", states=False)
    layer = case.layer(backend, **{rate: all_of_them})
    arguments = case.arguments()
    attach(arguments)
    net = net_of(layer, how)
    with mx.autograd.record():
        output = net(*arguments)
    output.backward()
    for array in (output, arguments[0].grad, *(p.grad() for p in layer.collect_params().values())):
        assert np.isfinite(array.asnumpy()).all()
    dropped = {
        "weight_dropout": layer.l0_h2h_weight.grad(),
        "drop_inputs": arguments[0].grad,
        "drop_outputs": output,
    }
    assert not dropped[rate].asnumpy().any()


def test_a_mask_is_the_same_in_all_steps_and_new_in_each_call(backend):
    layer = fastrnn.RNN(50, activation="relu", input_size=50, drop_outputs=0.5, backend=backend)
    layer.initialize(mx.init.Zero())
    layer.l0_i2h_bias.set_data(mx.nd.ones(50))
    outputs = []
    with mx.autograd.record():
        outputs = [layer(mx.nd.ones((7, 3, 50))).asnumpy() for _ in range(2)]
    for output in outputs:
        assert set(np.unique(output)) == {0.0, 2.0}
        assert (output == output[0]).all()
    first, second = outputs
    assert (first != second).any()
    assert (first[0, 0] != first[0, 1]).any()  # rows have masks of their own


def test_rates_drop_their_share_and_keep_the_mean(backend):
    hidden, rate = 400, 0.25
    layer = fastrnn.RNN(
        hidden, activation="relu", input_size=hidden, backend=backend, **dict.fromkeys(RATES, rate)
    )
    layer.initialize(mx.init.Zero())
    layer.l0_i2h_weight.set_data(mx.nd.full((hidden, hidden), 1 / hidden))
    layer.l0_h2h_weight.set_data(mx.nd.full((hidden, hidden), 1 / hidden))
    with mx.autograd.record():
        output, _ = layer(mx.nd.ones((2, 30, hidden)), mx.nd.ones((1, 30, hidden)))
    first = output.asnumpy()[0]
    assert first.mean() == pytest.approx(2 / (1 - rate) * (1 - rate), rel=0.01)
    assert (first == 0).mean() == pytest.approx(rate, rel=0.05)
    # What is left is a mean over the inputs of a row, plus one over the weights of a unit.
    left = first[first > 0] * (1 - rate)
    assert left.std() == pytest.approx(np.sqrt(2 * rate / (1 - rate) / hidden), rel=0.2)


@pytest.mark.parametrize(
    "drops",
    [{"drop_inputs": 0.4, "drop_outputs": 0.3}, {"drop_states": 0.4}],
    ids=["sequences", "states"],
)
def test_it_is_gluons_variational_dropout(drops, backend):
    if backend == "native" and "drop_states" in drops:
        pytest.skip("the native operator draws masks of the state itself")
    T, N, H = 6, 3, 5
    cell = mx.gluon.contrib.rnn.VariationalDropoutCell(
        mx.gluon.rnn.LSTMCell(H, input_size=4, prefix="l0_"), **drops
    )
    cell.initialize(mx.init.Uniform(0.5))
    layer = fastrnn.LSTM(H, input_size=4, backend=backend, **drops)
    layer.initialize()
    for name, parameter in cell.collect_params().items():
        getattr(layer, name).set_data(parameter.data())
    x = mx.nd.random.normal(shape=(T, N, 4))
    mx.random.seed(SEED)
    with mx.autograd.record():
        output, states = layer(x, layer.begin_state(N))
    mx.random.seed(SEED)
    with mx.autograd.train_mode():
        wanted, last = cell.unroll(T, x, layout="TNC", merge_outputs=True)
    for actual, expected in zip([output, *states], [wanted, *(s.expand_dims(0) for s in last)]):
        np.testing.assert_allclose(actual.asnumpy(), expected.asnumpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("hybrid", [False, True], ids=["eager", "parent"])
def test_gradients_that_are_added(hybrid, backend):
    case = DroppedCase(layers=2)
    layer = case.layer(backend)
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


def test_parameters_and_files_are_the_plain_layers(tmp_path, backend):
    case = LayerCase(layers=2, directions=2)
    layer = case.layer(backend, **RATES)
    layer.save_parameters(str(tmp_path / "layer.params"))
    plain = case.layer(module=mx.gluon.rnn)
    plain.initialize(mx.init.One(), force_reinit=True)
    plain.load_parameters(str(tmp_path / "layer.params"))
    for name, parameter in plain.collect_params().items():
        own = layer.collect_params()[name.replace(plain.prefix, layer.prefix)]
        np.testing.assert_array_equal(parameter.data().asnumpy(), own.data().asnumpy())


@pytest.mark.parametrize("portable", [False, True])
def test_exported_and_imported_it_drops_in_training_only(portable, tmp_path, backend):
    case = DroppedCase("gru", layers=2)
    layer = case.layer(backend)
    layer.hybridize()
    x, states = case.arguments()
    layer(x, states)
    layer.export(str(tmp_path / "net"))
    graph = mx.sym.load(str(tmp_path / "net-symbol.json"))
    graph = fastrnn.portable(graph) if portable else graph
    block = mx.gluon.SymbolBlock(graph, [mx.sym.var("data0"), mx.sym.var("data1")])
    block.load_parameters(str(tmp_path / "net-0000.params"), cast_dtype=True, allow_missing=True)
    plain = LayerCase("gru", layers=2)
    plain.check_outcome(tuple(_pair(block(x, *states))))
    mx.random.seed(SEED)
    with mx.autograd.train_mode():
        case.check_outcome(tuple(_pair(block(x, *states))))


def _pair(outputs):
    output, *states = outputs
    return output, states


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("bad", [-0.1, 1.5, float("nan"), "much"])
def test_a_rate_outside_of_0_to_1(rate, bad):
    with pytest.raises((TypeError, ValueError), match=f"{rate}: expected .* got {bad!r}"):
        fastrnn.GRU(3, **{rate: bad})


def test_the_rates_that_are_not_0_are_shown():
    layer = fastrnn.GRU(4, 2, input_size=3, weight_dropout=0.5, drop_outputs=0.1)
    assert repr(layer) == "GRU(3 -> 4, TNC, num_layers=2, weight_dropout=0.5, drop_outputs=0.1)"
    layer = fastrnn.LSTM(4, input_size=3, bidirectional=True, drop_inputs=1, zoneout_states=0.1)
    assert repr(layer) == "LSTM(3 -> 4, TNC, bidirectional, drop_inputs=1.0, zoneout_states=0.1)"


def test_without_rates_the_graph_is_the_plain_one():
    if not native.STATUS.usable:
        pytest.skip(native.STATUS.reason)
    graphs = []
    for options in ({}, dict.fromkeys(RATES, 0)):
        with mx.name.NameManager():
            layer = fastrnn.LSTM(3, 2, input_size=2, prefix="l_", **options)
            graphs.append(layer(mx.sym.var("data")).tojson())
    assert graphs[0] == graphs[1]
