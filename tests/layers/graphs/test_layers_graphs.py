"""Layers in traced graphs: hybridized, inside other blocks, exported."""

from __future__ import annotations

import gc
import json
import weakref
from collections import Counter

import pytest
import reference as ref
from cases import MODES, LayerCase, Parent, attach, layer_class, mx, with_reserves

import fastrnn
from fastrnn.mxnet import native

STATIC = [
    {},
    {"static_alloc": True},
    {"static_alloc": True, "static_shape": True},
]
STATIC_IDS = ["plain", "static-alloc", "static-shape"]


@pytest.mark.parametrize("flags", STATIC, ids=STATIC_IDS)
@pytest.mark.parametrize("states", [True, False], ids=["states", "no-states"])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("mode", MODES)
def test_hybridized(mode, directions, states, flags, backend):
    case = LayerCase(mode, layers=2, directions=directions, states=states)
    layer = case.layer(backend)
    layer.hybridize(**flags)
    for _ in range(2):
        case.check(layer)


@pytest.fixture
def graphs(monkeypatch):
    """What is known of each graph that MXNet makes: its flags, and a weak reference."""
    made = []

    class CachedOp(mx.nd.CachedOp):
        def __init__(self, symbol, flags=(), *args):
            super().__init__(symbol, flags, *args)
            made.append((dict(flags), weakref.ref(self)))

    for module in (mx.nd, mx.ndarray, mx.gluon.block.ndarray):
        monkeypatch.setattr(module, "CachedOp", CachedOp)
    return made


@pytest.mark.parametrize("flags", STATIC, ids=STATIC_IDS)
def test_recorded_calls_run_a_graph_with_the_flags_of_hybridize(flags, backend, graphs):
    case = LayerCase(states=False)
    layer = case.layer(backend)
    layer.hybridize(**flags)
    case.check(layer)  # whose input has a gradient
    assert graphs
    for found, _ in graphs:
        assert flags.items() <= found.items()


def test_recorded_graphs_are_given_back(backend, graphs):
    case = LayerCase(layers=2, states=False)
    layer = case.layer(backend)
    layer.hybridize(static_alloc=True)
    for parameter in layer.collect_params().values():
        parameter.grad_req = "add"
        with mx.autograd.record():
            output = layer(case.arguments()[0])
        output.backward()
    del output

    def alive():
        gc.collect()
        return sum(graph() is not None for _, graph in graphs)

    assert 0 < alive() <= 5
    layer.hybridize(False)
    assert alive() == 0


@pytest.mark.parametrize("flags", STATIC, ids=STATIC_IDS)
@pytest.mark.parametrize("states", [True, False], ids=["states", "no-states"])
@pytest.mark.parametrize("layout", ["TNC", "NTC"])
@pytest.mark.parametrize("mode", MODES)
def test_inside_a_hybridized_parent(mode, layout, states, flags, backend):
    case = LayerCase(mode, layers=2, directions=2, layout=layout, states=states)
    layer = case.layer(backend)
    parent = Parent(layer)
    parent.hybridize(**flags)
    for _ in range(2):
        case.check(layer, parent)


@pytest.mark.parametrize("options", [{}, {"state_clip_min": -9, "state_clip_max": 9}])
def test_inside_a_parent_that_makes_the_states(options, backend):
    class Maker(Parent):
        def hybrid_forward(self, F, x):
            rows = case.N if F is mx.nd else 0  # a graph finds out by itself
            return self.layer(x, self.layer.begin_state(rows, func=F.zeros))[0]

    case = LayerCase(layers=2, directions=2, states=False)
    layer = case.layer(backend, **options)
    net = Maker(layer)
    for hybrid in (False, True):
        net.hybridize(hybrid)
        case.check(layer, net)


@pytest.mark.parametrize("mode", MODES)
def test_as_a_symbol(mode, backend):
    case = LayerCase(mode, layers=2, states=False)
    layer = case.layer(backend)
    symbol = layer(mx.sym.var("data"))
    values = {name: p.data() for name, p in layer.collect_params().items()}
    x = case.arguments()[0]
    gradient = mx.nd.zeros_like(x)
    executor = symbol.bind(mx.cpu(), {"data": x, **values}, {"data": gradient})
    for train in (False, True, True):
        case.check_outcome(executor.forward(is_train=train)[0])
        if train:
            gradient[:] = 0
            executor.backward(case.array(case.d_output))
            ref.assert_close(gradient, case.gradients.x)


@pytest.mark.parametrize("states", [True, False], ids=["states", "no-states"])
def test_a_graph_whose_layers_have_a_reserve_as_an_output(states):
    # So earlier versions exported them.
    if not native.STATUS.usable:
        pytest.skip(native.STATUS.reason)
    case = LayerCase(layers=2, directions=2, states=states)
    layer = case.layer()
    x, *given = case.arguments()
    given = given[0] if given else []
    names = [f"data{k}" for k in range(1 + len(given))]
    data, *others = (mx.sym.var(name) for name in names)
    outcome = layer(data, others) if others else layer(data)
    symbol = mx.sym.Group([outcome[0], *outcome[1]]) if others else outcome
    block = mx.gluon.SymbolBlock(
        with_reserves(symbol), list(map(mx.sym.var, names)), layer.collect_params()
    )
    block.hybridize()
    x.attach_grad()
    for _ in range(2):
        with mx.autograd.record():
            outcome = block(x, *given)
        case.backward((outcome[0], outcome[1:]) if given else outcome)
        ref.assert_close(x.grad, case.gradients.x)


@pytest.mark.parametrize(("layout", "shape"), [("TNC", (7, 0, 4)), ("NTC", (0, 7, 4))])
@pytest.mark.parametrize("gpus", [0, 1])
def test_as_a_symbol_of_a_batch_that_is_not_known_yet(gpus, layout, shape, monkeypatch):
    # Of an input that has no number of dimensions yet, MXNet writes past what it hands operators.
    if not native.STATUS.usable:
        pytest.skip(native.STATUS.reason)
    monkeypatch.setattr(native, "GPUS", gpus)
    layer = layer_class("lstm")(5, 2, layout=layout, dropout=0.5, input_size=4)
    inside = layer(mx.sym.var("data", shape=shape)).get_internals()
    for name, found in zip(inside.list_outputs(), inside.infer_shape_partial()[1]):
        assert found, name


def test_other_sizes_through_the_same_graph(backend):
    net = LayerCase("gru", layers=2).layer(backend)
    net.hybridize()
    for T, N in [(4, 3), (1, 1), (9, 2), (4, 3)]:
        case = LayerCase("gru", T, N, layers=2)
        case.fill(net)
        case.check(net)


@pytest.mark.parametrize("states", [True, False], ids=["states", "no-states"])
@pytest.mark.parametrize("where", ["alone", "parent"])
def test_gradients_add_up_through_a_graph(where, states, backend):
    case = LayerCase(layers=2, directions=2, states=states)
    layer = case.layer(backend)
    net = layer if where == "alone" else Parent(layer)
    net.hybridize()
    case.check(layer, net)
    layer.collect_params().setattr("grad_req", "add")
    arguments = case.arguments()
    attach(arguments, "add")
    for _ in range(2):
        with mx.autograd.record():
            outcome = net(*arguments)
        case.backward(outcome)
    case.check_gradients(layer, arguments, times=2)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("states", [True, False], ids=["states", "no-states"])
@pytest.mark.parametrize("hidden", [2, 4, 7])
def test_projections_wider_than_the_gates(hidden, states, directions):
    case = LayerCase("lstm", H=hidden, projection=17, directions=directions, states=states)
    layer = case.layer()
    net = Parent(layer)
    net.hybridize()
    case.check(layer, net)


def test_operators_of_a_traced_layer():
    if not native.STATUS.usable:
        pytest.skip(native.STATUS.reason)
    for layers, copies in (1, 5), (2, 9):  # of the input and the parameters
        symbol = layer_class("lstm")(5, layers, input_size=4)(mx.sym.var("data"))
        nodes = Counter(node["op"] for node in json.loads(symbol.tojson())["nodes"])
        del nodes["null"]
        assert nodes == {native.GRAPH_OPERATOR: 1, "_copy": copies}


def test_a_graph_that_is_dropped_is_freed(monkeypatch):
    class Watched(mx.nd.CachedOp):
        """One that can be referred to weakly."""

    monkeypatch.setattr(mx.nd, "CachedOp", Watched)
    layer = fastrnn.LSTM(8, input_size=4, backend="gluon")
    layer.initialize()
    x = mx.nd.ones((3, 2, 4))
    for drop in (lambda: layer.hybridize(False), lambda: layer.cast("float64")):
        layer.hybridize()
        layer(x).wait_to_read()
        graph = weakref.ref(layer._cached_op)
        drop()
        gc.collect()
        assert graph() is None


@pytest.mark.parametrize("mode", MODES)
def test_hybridized_layers_compute_what_eager_ones_do(mode):
    # Bit for bit, in the first call, which traces the layer, and later.
    case = LayerCase(mode, layers=2, directions=2)
    eager, traced = case.layer(), case.layer()
    traced.hybridize()
    for record in (False, True, False):
        for layer in (eager, traced):
            arguments = case.arguments()
            attach(arguments)
            with mx.autograd.record() if record else mx.autograd.pause():
                outcome = layer(*arguments)
            layer.seen = [outcome[0], *outcome[1]]
            if record:
                case.backward(outcome)
                layer.seen += [arguments[0].grad, layer.l0_h2h_weight.grad()]
        for ours, theirs in zip(eager.seen, traced.seen):
            assert (ours == theirs).asnumpy().all()


def test_a_monitor_sees_the_operators_of_a_hybridized_layer(backend):
    case = LayerCase("gru", states=False)
    layer = case.layer(backend)
    layer.hybridize()
    case.check_outcome(layer(*case.arguments()))
    seen = []
    layer.register_op_hook(lambda name, *_: seen.append(name))
    case.check_outcome(layer(*case.arguments()))
    assert seen


@pytest.mark.parametrize("hybrid", [False, True], ids=["eager", "hybridized"])
@pytest.mark.parametrize("mode", MODES)
def test_calls_with_and_without_states_take_turns(mode, hybrid, backend):
    given, zero = LayerCase(mode, layers=2), LayerCase(mode, layers=2, states=False)
    layer = given.layer(backend)
    layer.hybridize(hybrid)
    for case in (zero, given, zero, given, given, zero):
        case.check_outcome(layer(*case.arguments()))


def test_one_layer_twice_in_a_graph_with_and_without_states(backend):
    class Twice(mx.gluon.HybridBlock):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def hybrid_forward(self, F, x, state):
            return self.layer(x), self.layer(x, state)

    given, zero = LayerCase("gru"), LayerCase("gru", states=False)
    layer = given.layer(backend)
    net = Twice(layer)
    net.hybridize()
    x, (state,) = given.arguments()
    alone, outcome = net(x, state)
    zero.check_outcome(alone)
    given.check_outcome(outcome)


@pytest.mark.parametrize("hybrid", [False, True], ids=["eager", "hybridized"])
@pytest.mark.parametrize("where", ["alone", "parent"])
@pytest.mark.parametrize("mode", MODES)
def test_input_size_from_the_first_call(mode, where, hybrid, backend):
    case = LayerCase(mode, layers=2, directions=2)
    layer = case.layer(backend, input_size=0)
    fresh = layer_class(mode)(
        case.H, 2, bidirectional=True, backend=backend, **activation(mode), prefix=layer.prefix
    )
    fresh.initialize()
    net = fresh if where == "alone" else Parent(fresh)
    net.hybridize(hybrid)
    net(*case.arguments())
    assert fresh.l0_i2h_weight.shape == fresh.r0_i2h_weight.shape
    assert fresh.l0_i2h_weight.shape[1] == case.I
    case.fill(fresh)
    case.check(fresh, net)


def activation(mode):
    return {"activation": mode[len("rnn_") :]} if mode.startswith("rnn") else {}


def test_input_size_from_the_first_call_without_states_in_a_deep_parent(backend):
    case = LayerCase("gru", states=False)
    net = mx.gluon.nn.HybridSequential()
    first = layer_class("gru")(8, bidirectional=True, backend=backend)
    second = layer_class("gru")(case.H, backend=backend)
    net.add(mx.gluon.nn.Dense(7, flatten=False), first, second)
    net.initialize()
    net.hybridize()
    x = case.arguments()[0]
    assert net(x).shape == (case.T, case.N, case.H)
    assert second.l0_i2h_weight.shape == (3 * case.H, 16)


@pytest.mark.parametrize("states", [True, False], ids=["states", "no-states"])
@pytest.mark.parametrize("mode", MODES)
def test_exported_and_imported(mode, states, backend, tmp_path):
    case = LayerCase(mode, layers=2, directions=2, states=states)
    layer = case.layer(backend)
    net = Parent(layer)
    net.hybridize()
    x, *given = case.arguments()
    net(x, *given)
    net.export(str(tmp_path / "net"))
    count = 1 + (len(given[0]) if given else 0)
    names = ["data"] if count == 1 else [f"data{k}" for k in range(count)]
    block = mx.gluon.SymbolBlock.imports(
        str(tmp_path / "net-symbol.json"), names, str(tmp_path / "net-0000.params")
    )
    outcome = block(x, *(given[0] if given else []))
    case.check_outcome((outcome[0], outcome[1:]) if given else outcome)
    x.attach_grad()
    with mx.autograd.record():
        outcome = block(x, *(given[0] if given else []))
    case.backward((outcome[0], outcome[1:]) if given else outcome)
    ref.assert_close(x.grad, case.gradients.x)


def test_an_exported_layer_returns_output_and_states(backend, tmp_path):
    case = LayerCase("gru", layers=2)
    layer = case.layer(backend)
    layer.hybridize()
    x, (state,) = case.arguments()
    layer(x)
    layer.export(str(tmp_path / "layer"))
    block = mx.gluon.SymbolBlock.imports(
        str(tmp_path / "layer-symbol.json"),
        ["data0", "data1"],
        str(tmp_path / "layer-0000.params"),
    )
    output, last = block(x, state)
    case.check_outcome((output, [last]))


def test_training_alternates_with_inference(backend):
    case = LayerCase("gru", layers=2)
    layer = case.layer(backend)
    layer.hybridize()
    trainer = mx.gluon.Trainer(layer.collect_params(), "sgd", {"learning_rate": 0.1})
    arguments = case.arguments()
    before = layer(*arguments)[0].asnumpy()
    for _ in range(2):
        with mx.autograd.record():
            loss = (layer(*arguments)[0] ** 2).sum()
        loss.backward()
        trainer.step(1)
        after = layer(*arguments)[0].asnumpy()
        assert (after**2).sum() < (before**2).sum()
        before = after


def test_hooks_see_what_the_caller_sees(backend):
    case, zero = LayerCase("gru"), LayerCase("gru", states=False)
    layer = case.layer(backend)
    seen = []
    layer.register_forward_hook(lambda block, inputs, outcome: seen.append(outcome))
    zero.check_outcome(layer(*zero.arguments()))
    case.check_outcome(layer(*case.arguments()))
    zero.check_outcome(seen[0])
    case.check_outcome(seen[1])
