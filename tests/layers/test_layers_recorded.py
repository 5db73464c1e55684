"""Layers called by themselves while autograd records: one node, and what it keeps."""

from __future__ import annotations

import json

import pytest
import reference as ref
from cases import LayerCase, attach, mx

from fastrnn.mxnet import native


@pytest.mark.parametrize("hybridize", [False, True], ids=["eager", "hybrid"])
@pytest.mark.parametrize(
    ("options", "one"),
    [
        ({}, True),
        ({"layers": 3, "directions": 2, "dtype": "float64"}, True),
        ({"lengths": True}, True),
        ({"layers": 2, "N": 64, "T": 70, "H": 4}, True),
        ({"layers": 2, "N": 64, "T": 70, "H": 8}, False),  # with a large reserve
        ({"N": 64, "T": 70, "H": 16}, False),
        ({"dtype": "float16"}, False),
        ({"layout": "NTC"}, False),
    ],
)
def test_a_recorded_call_is_one_operator(options, one, hybridize):
    if not native.STATUS.usable:
        pytest.skip(native.STATUS.reason)
    case = LayerCase("gru", **options)
    layer = case.layer()
    layer.hybridize(hybridize)

    def recorded():
        arguments = case.arguments()
        with mx.autograd.record():
            output, _ = layer(*arguments)
        nodes = json.loads(mx.autograd.get_symbol(output).tojson())["nodes"]
        return [node["op"] for node in nodes if node["op"] not in ("null", "Cast", "BlockGrad")]

    assert (recorded() == [native.OPERATOR]) == one
    layer.l0_h2h_bias.grad_req = "add"
    assert native.OPERATOR not in recorded()


def test_a_recorded_call_keeps_what_backward_reads(backend):
    # The pass does not read the bias. Run forward again, it would.
    case = LayerCase(N=64, T=70, H=16, states=False)
    layer = case.layer(backend)
    arguments = case.arguments()
    with mx.autograd.record():
        outcome = layer(*arguments)
    layer.l0_h2h_bias.data()[:] += 1
    case.backward(outcome)
    ref.assert_close(layer.l0_h2h_weight.grad(), case.gradients.weights[0].h2h_weight)


@pytest.mark.parametrize("H", [6, 16])  # with a small reserve, and a large one
@pytest.mark.parametrize("hybridize", [False, True], ids=["eager", "hybrid"])
@pytest.mark.parametrize("layers", [1, 2])
def test_two_recorded_calls_before_their_backward_passes(layers, hybridize, H, backend):
    case = LayerCase(N=64, T=70, H=H, layers=layers, states=False)
    layer = case.layer(backend)
    layer.hybridize(hybridize)
    calls = []
    for _ in range(2):
        calls.append(case.arguments())
        attach(calls[-1])
        with mx.autograd.record():
            calls[-1].append(layer(*calls[-1]))
    for arguments in calls:
        case.backward(arguments.pop())
        case.check_gradients(layer, arguments)


@pytest.mark.parametrize("H", [6, 16])
@pytest.mark.parametrize("lengths", [False, True], ids=["", "lengths"])
def test_a_gradient_in_another_recorded_computation(lengths, H):
    if not native.STATUS.usable:
        pytest.skip(native.STATUS.reason)
    case = LayerCase(N=64, T=70, H=H, states=False, lengths=lengths)
    layer = case.layer()
    with mx.autograd.record():
        output = (layer(*case.arguments()) * case.array(case.d_output)).sum()
        weight = layer.l0_i2h_weight.data()
        (found,) = mx.autograd.grad(output, [weight], create_graph=True, retain_graph=True)
    ref.assert_close(found, case.gradients.weights[0].i2h_weight)
