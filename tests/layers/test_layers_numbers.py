"""The layers' results and gradients: equal to the oracle's, and to those of MXNet's layers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import reference as ref
from cases import MODES, LayerCase, Parent, attach, mx
from hypothesis import given
from hypothesis import strategies as st

import fastrnn
from fastrnn.mxnet import native

sizes = st.one_of(st.integers(1, 9), st.sampled_from([16, 17, 31, 33]))


@pytest.mark.parametrize("states", [True, False], ids=["states", "no-states"])
@pytest.mark.parametrize("layout", ["TNC", "NTC"])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("mode", MODES)
def test_results_and_gradients(mode, layers, directions, layout, states, backend):
    case = LayerCase(mode, layers=layers, directions=directions, layout=layout, states=states)
    case.check(case.layer(backend))


def masks_of_dropout(seed, count, shape, rate):
    """Return what MXNet's dropout multiplies so many arrays by, one after the other."""
    mx.random.seed(seed)
    with mx.autograd.train_mode():
        return [mx.nd.Dropout(mx.nd.ones(shape), p=rate).asnumpy() for _ in range(count)]


@pytest.mark.parametrize("hybridize", [False, True], ids=["eager", "hybrid"])
@pytest.mark.parametrize("lengths", [False, True], ids=["whole", "ragged"])
@pytest.mark.parametrize(("layers", "directions"), [(2, 1), (3, 1), (4, 1), (2, 2)])
@pytest.mark.parametrize("mode", MODES)
def test_dropout_is_the_one_that_mxnet_would_draw(
    mode, layers, directions, lengths, hybridize, backend
):
    T, N, H, rate = 9, 3, 6, 0.4
    masks = masks_of_dropout(11, layers - 1, (T, N, directions * H), rate)
    sizes = {"layers": layers, "directions": directions, "lengths": lengths}
    case = LayerCase(mode, T, N, H=H, **sizes, masks=masks)
    layer = case.layer(backend, dropout=rate)
    layer.hybridize(hybridize)
    layer(*case.arguments())  # a graph that is traced outside training is for training too
    for computed in (False, True):
        mx.random.seed(11)
        case.check_recorded(layer, layer, None, True, computed)


@pytest.mark.parametrize(
    "count, options",
    [(1, {"bidirectional": True}), (3, {"dropout": 0.5}), (3, {"weight_dropout": 0.5})],
)
def test_how_many_operators_a_graph_has(count, options):
    if not native.STATUS.usable:
        pytest.skip(native.STATUS.reason)
    layer = fastrnn.LSTM(3, 3, input_size=2, **options)

    def operators():
        nodes = json.loads(layer(mx.sym.var("data")).tojson())["nodes"]
        return [n["op"] for n in nodes].count(native.GRAPH_OPERATOR)

    assert operators() == count
    layer.collect_params(".*l0_.*|.*r0_.*").setattr("grad_req", "null")
    assert operators() == 3  # MXNet leaves out the lowest layer's backward pass


def test_layers_all_at_once_where_nothing_is_to_be_learned(monkeypatch):
    if not native.STATUS.usable:
        pytest.skip(native.STATUS.reason)
    calls, layers = [], native.layers

    def spy(cell, data, states, weights, *others, **options):
        calls.append(len(weights))
        return layers(cell, data, states, weights, *others, **options)

    monkeypatch.setattr(native, "layers", spy)
    layer = fastrnn.LSTM(3, 4, input_size=2, dropout=0.5)
    layer.initialize()
    layer(mx.nd.ones((2, 1, 2)))
    with mx.autograd.train_mode():
        layer(mx.nd.ones((2, 1, 2)))
    with mx.autograd.record(train_mode=False):
        layer(mx.nd.ones((2, 1, 2)))  # a graph of operators of their own
    assert calls == [4, *[1] * 4]


@given(
    mode=st.sampled_from(MODES),
    T=sizes,
    N=sizes,
    I=sizes,
    H=sizes,
    layers=st.integers(1, 2),
    directions=st.integers(1, 2),
    seed=st.integers(0, 1000),
)
def test_any_size(backend, mode, T, N, I, H, layers, directions, seed):  # noqa: E741
    case = LayerCase(mode, T, N, I, H, layers=layers, directions=directions, seed=seed)
    case.check(case.layer(backend))


@pytest.mark.parametrize("T, N, H", [(1, 1, 257), (1, 5, 128), (40, 2, 7), (3, 64, 20)])
@pytest.mark.parametrize("mode", MODES)
def test_shapes_off_the_beaten_track(mode, T, N, H, backend):
    case = LayerCase(mode, T, N, I=3, H=H, layers=2)
    case.check(case.layer(backend))


@pytest.mark.parametrize(("mode", "H"), [("lstm", 128), ("lstm", 256), ("rnn_tanh", 512)])
def test_gradients_of_weights_whose_rows_share_cache_sets(mode, H, backend):
    # On a CPU their gates are copied piece by piece.
    case = LayerCase(mode, T=5, N=3, I=7, H=H)
    case.check(case.layer(backend))


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("mode", MODES)
def test_like_mxnets_own_layer(mode, directions, backend):
    case = LayerCase(mode, layers=2, directions=directions)
    ours, theirs = case.layer(backend), case.layer(module=mx.gluon.rnn)
    outcomes, grads = [], []
    for layer in (ours, theirs):
        arguments = case.arguments()
        attach(arguments)
        with mx.autograd.record():
            outcome = layer(*arguments)
        case.backward(outcome)
        outcomes.append([outcome[0], *outcome[1]])
        arrays = [arguments[0].grad, *(state.grad for state in arguments[1])]
        grads.append(arrays + [p.grad() for p in layer.collect_params().values()])
    for ours_, theirs_ in zip(outcomes[0] + grads[0], outcomes[1] + grads[1]):
        ref.assert_close(ours_, theirs_.asnumpy().astype(np.float64))


@pytest.mark.parametrize("mode", MODES)
def test_gradients_add_up_where_asked(mode, backend):
    case = LayerCase(mode, layers=2, directions=2)
    layer = case.layer(backend)
    layer.collect_params().setattr("grad_req", "add")
    arguments = case.arguments()
    attach(arguments, "add")
    for _ in range(3):
        with mx.autograd.record():
            outcome = layer(*arguments)
        case.backward(outcome)
    case.check_gradients(layer, arguments, times=3)


def test_gradients_that_were_attached_to_a_parameters_array_add_up(backend):
    case = LayerCase("gru")
    layer = case.layer(backend)
    (name, k, field), *others = case.parameters()
    getattr(layer, name).data().attach_grad("add")
    for _ in range(3):
        with mx.autograd.record():
            outcome = layer(*case.arguments())
        case.backward(outcome)
    gradient = 3 * getattr(case.gradients.weights[k], field)
    ref.assert_close(getattr(layer, name).data().grad, gradient, name)
    for name, k, field in others:
        ref.assert_close(getattr(layer, name).grad(), getattr(case.gradients.weights[k], field))


@pytest.mark.parametrize("hybridize", [False, True], ids=["eager", "hybrid"])
@pytest.mark.parametrize("mode", MODES)
def test_some_gradients_add_up_and_others_do_not(mode, hybridize, backend):
    case = LayerCase(mode, layers=2, directions=2)
    layer = case.layer(backend)
    layer.hybridize(hybridize)
    arguments = case.arguments()
    names = [name for name, _, _ in case.parameters()]
    adding = names[1::3]
    for name in adding:
        getattr(layer, name).grad_req = "add"
    arguments[0].attach_grad("add")
    arguments[1][-1].attach_grad("add")
    for _ in range(3):
        with mx.autograd.record():
            outcome = layer(*arguments)
        case.backward(outcome)
    wanted = case.gradients
    ref.assert_close(arguments[0].grad, 3 * wanted.x)
    ref.assert_close(arguments[1][-1].grad, 3 * (wanted.h0 if wanted.c0 is None else wanted.c0))
    for name, k, field in case.parameters():
        times = 3 if name in adding else 1
        gradient = times * getattr(wanted.weights[k], field)
        ref.assert_close(getattr(layer, name).grad(), gradient, name)


@pytest.mark.parametrize("leaf", [False, True], ids=["computed", "leaf"])
def test_gradients_of_an_array_and_weights_that_many_calls_use(leaf, backend):
    # MXNet adds more than a few gradients of one array in place.
    case = LayerCase("gru", layers=2, states=False)
    layer, calls = case.layer(backend), 20
    x = case.array(case.x)
    x.attach_grad("add")
    with mx.autograd.record():
        data = x if leaf else x * 1
        outcomes = [layer(data) for _ in range(calls)]
    mx.autograd.backward(outcomes, [case.array(case.d_output)] * calls)
    case.check_gradients(layer, [x], times=calls)


@pytest.mark.parametrize("how", ["eager", "hybrid", "parent"])
def test_a_derived_class_begins_with_its_own_states(how, backend):
    case = LayerCase("gru", layers=2)

    class Layer(fastrnn.GRU):
        def begin_state(self, batch_size=0, func=mx.nd.zeros, **kwargs):
            zeros = super().begin_state(batch_size, func, **kwargs)
            return [state + self.begin for state in zeros]

    layer = Layer(case.H, 2, input_size=case.I, backend=backend)
    layer.initialize()
    case.fill(layer)
    net = Parent(layer) if how == "parent" else layer
    net.hybridize(how != "eager")
    for begin in (0.25,) if how == "parent" else (0.25, -0.5):
        layer.begin = begin
        h0 = np.full_like(case.h0, begin)
        result = ref.stack_forward("gru", case.x, h0, None, case.weights)
        ref.assert_close(net(case.array(case.x)), result.output)


def test_gradients_nobody_wants_do_not_disturb_the_others(backend):
    case = LayerCase(layers=2)
    layer = case.layer(backend)
    frozen = ("l0_h2h_weight", "l1_i2h_bias")
    for name in frozen:
        getattr(layer, name).grad_req = "null"
    arguments = case.arguments()
    arguments[1][0].attach_grad()
    with mx.autograd.record():
        outcome = layer(*arguments)
    case.backward(outcome)
    ref.assert_close(arguments[1][0].grad, case.gradients.h0)
    for name, k, field in case.parameters():
        if name not in frozen:
            ref.assert_close(
                getattr(layer, name).grad(), getattr(case.gradients.weights[k], field), name
            )


@pytest.mark.parametrize("how", ["eager", "parent"])
@pytest.mark.parametrize("frozen", ["", "l", "_weight", "i2h_weight", "h2h_weight", "_bias"])
@pytest.mark.parametrize(
    "mode, option",
    [(mode, {"dtype": dtype}) for mode in MODES for dtype in ("float32", "float64")]
    + [
        ("gru", {"dtype": "float64", "lengths": True}),
        ("gru", {"dtype": "float16", "lengths": True}),
    ]
    + [("lstm", {"projection": 4}), ("lstm", {"clip": ref.Clip(-0.3, 0.4, False)})],
    ids=str,
)
def test_frozen_parameters(mode, option, frozen, how):
    case = LayerCase(mode, layers=2, directions=2, **option)
    layer = case.layer("gluon")
    learning = [part for part in case.parameters() if frozen not in part[0]]
    for name, parameter in layer.collect_params().items():
        parameter.grad_req = "null" if frozen in name[len(layer.prefix) :] else "write"
    net = Parent(layer) if how == "parent" else layer
    net.hybridize(how == "parent")
    case.parameters = lambda: learning
    case.check_learning(layer, net)


@pytest.mark.parametrize("how", ["eager", "parent"])
@pytest.mark.parametrize("mode, dtype", [("lstm", "float32"), ("rnn_relu", "float64")])
def test_gradients_of_plain_operators_that_are_added(mode, dtype, how):
    clip = ref.Clip(-0.3, 0.4, False) if mode == "lstm" else None
    case = LayerCase(mode, layers=2, dtype=dtype, clip=clip)
    layer = case.layer("gluon")
    layer.collect_params().setattr("grad_req", "add")
    layer.collect_params().zero_grad()
    arguments = case.arguments()
    attach(arguments, "add")
    net = Parent(layer) if how == "parent" else layer
    net.hybridize(how == "parent")
    for _ in range(2):
        with mx.autograd.record():
            outcome = net(*arguments)
        case.backward(outcome)
    case.check_gradients(layer, arguments, times=2)


@pytest.mark.parametrize("mode", MODES)
def test_the_gradient_of_states_alone(mode):
    case = LayerCase(mode, layers=2, dtype="float64")
    layer = case.layer("gluon")
    layer.collect_params().setattr("grad_req", "null")
    x, states = case.arguments()
    states[0].attach_grad()
    with mx.autograd.record():
        outcome = layer(x, states)
    case.backward(outcome)
    ref.assert_close(states[0].grad, case.gradients.h0, "gradient of h0", "float64")


def test_the_same_array_as_input_and_state(backend):
    # T=1, layers=1 and I=H: one array is both, and its gradient is the sum.
    case = LayerCase("gru", T=1, N=2, I=4, H=4)
    layer = case.layer(backend)
    x = case.array(case.x)
    x.attach_grad()
    with mx.autograd.record():
        output, _ = layer(x, x)
    output.backward(case.array(case.d_output))
    result = ref.stack_forward("gru", case.x, case.x, None, case.weights)
    grads = ref.stack_backward(result, case.d_output, np.zeros_like(case.h0))
    ref.assert_close(x.grad, grads.x + grads.h0)


@pytest.mark.parametrize("mode", MODES)
def test_a_sequence_in_two_parts_is_the_whole(mode, backend):
    case = LayerCase(mode, T=7, layers=2)
    layer = case.layer(backend)
    x, states = case.arguments()
    first, states = layer(x[:3], states)
    second, states = layer(x[3:], states)
    case.check_outcome((mx.nd.concat(first, second, dim=0), states))


@pytest.mark.parametrize("mode", MODES)
def test_dropout_between_layers_only_while_training(mode, backend):
    case = LayerCase(mode, T=3, N=4, H=40, layers=2, states=False)
    layer = case.layer(backend, dropout=0.5)
    x = case.arguments()[0]
    case.check_outcome(layer(x))
    with mx.autograd.record(train_mode=False):
        case.check_outcome(layer(x))
    with mx.autograd.record():
        one, other = layer(x).asnumpy(), layer(x).asnumpy()
    assert np.abs(one - other).max() > 1e-3  # another mask each time
    single = LayerCase(mode, layers=1, states=False)  # no layer below another: nothing to drop
    layer, x = single.layer(backend, dropout=0.5), single.arguments()[0]
    with mx.autograd.record():
        single.check_outcome(layer(x))


def test_dropout_drops_the_share_it_is_told_and_keeps_the_mean(backend):
    hidden = 400
    layer = fastrnn.RNN(hidden, 2, "relu", dropout=0.25, input_size=1, backend=backend)
    layer.initialize(mx.init.Zero())
    # Below, every unit is 1; above, every unit is the mean of what is left of them.
    layer.l0_i2h_weight.set_data(mx.nd.ones((hidden, 1)))
    layer.l1_i2h_weight.set_data(mx.nd.full((hidden, hidden), 1.0 / hidden))
    with mx.autograd.record():
        output = layer(mx.nd.ones((50, 8, 1))).asnumpy()
    assert output.mean() == pytest.approx(1.0, rel=0.01)
    assert output.std() == pytest.approx(np.sqrt(0.25 / 0.75 / hidden), rel=0.2)


@pytest.mark.parametrize("mode", MODES)
def test_more_than_ten_layers(mode, backend):
    case = LayerCase(mode, T=2, N=2, I=3, H=3, layers=12)
    case.check(case.layer(backend))


def test_several_devices(backend):
    case = LayerCase(layers=2)
    layer = case.layer(backend)
    devices = [mx.cpu(0), mx.cpu(1)]
    layer.collect_params().reset_ctx(devices)
    for hybrid in (False, True):
        layer.hybridize(hybrid)
        for device in devices:
            case.check(layer, ctx=device)
            assert layer(*case.arguments(device))[0].context == device


def test_same_input_same_bits(backend):
    case = LayerCase("gru", T=9, N=7, H=33, layers=2, directions=2)
    layer = case.layer(backend)

    def run():
        arguments = case.arguments()
        attach(arguments)
        with mx.autograd.record():
            outcome = layer(*arguments)
        case.backward(outcome)
        grads = [p.grad().asnumpy().copy() for p in layer.collect_params().values()]
        return [outcome[0].asnumpy(), arguments[0].grad.asnumpy(), *grads]

    for one, other in zip(run(), run()):
        np.testing.assert_array_equal(one, other)
