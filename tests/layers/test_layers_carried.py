"""Training that carries states on without cutting them off.

Gluon's layer is one node of autograd's graph. Each ``backward`` clears the node, so a state that a
later call is given is a constant there, whether or not the caller detached it.
"""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import reference as ref
from cases import MODES, LayerCase, mx

STEPS = 5
OPTIONS = {
    "plain": {},
    "ntc": {"layout": "NTC"},
    "three": {"layers": 3},
    "bidirectional": {"directions": 2},
    "lengths": {"lengths": True},
    "float16": {"dtype": "float16"},
    "float64": {"dtype": "float64"},
}
OF_LSTM = {"clip": {"clip": ref.Clip(-0.2, 0.3)}, "projection": {"projection": 4}}


def train(case, layer, detach=False, req="write"):
    """Return outputs and all parameters' gradients of some steps that carry the states."""
    layer.collect_params().setattr("grad_req", req)
    x, states, *lengths = case.arguments()
    found = []
    for k in range(STEPS):
        if detach:
            states = [state.detach() for state in states]
        else:
            for state in states:
                state.detach()  # without effect, as in published code
        with mx.autograd.record():
            output, states = layer(x * (k + 1), states, *lengths)
            loss = (output * output).sum()
        loss.backward()
        gradients = [p.grad().asnumpy() for p in layer.collect_params().values()]
        found.append([output.asnumpy(), *gradients])
        layer.collect_params().zero_grad()
    return found


def check_equal(found, wanted, dtype="float32"):
    for step, expected in zip(found, wanted):
        for array, other in zip(step, expected):
            ref.assert_close(array, other.astype(np.float64), dtype=dtype)


@pytest.mark.parametrize("hybridize", [False, True], ids=["eager", "hybrid"])
@pytest.mark.parametrize(
    ("mode", "options"),
    [(mode, name) for mode in MODES for name in OPTIONS] + [("lstm", name) for name in OF_LSTM],
)
def test_carried_states_are_constants(mode, options, hybridize, backend):
    case = LayerCase(mode, **{"layers": 2, **{**OPTIONS, **OF_LSTM}[options]})
    layer = case.layer(backend if case.dtype == "float32" else "auto")
    layer.hybridize(hybridize)
    check_equal(train(case, layer), train(case, layer, detach=True), case.dtype)


@pytest.mark.parametrize("req", ["write", "add"])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("mode", MODES)
def test_gradients_are_those_of_gluon(mode, directions, layers, req):
    if layers == 3 and mode.startswith("rnn"):
        pytest.skip("MXNet's gradients of three such layers are wrong")
    case = LayerCase(mode, layers=layers, directions=directions)
    theirs = train(case, case.layer(module=mx.gluon.rnn), req=req)
    check_equal(train(case, case.layer(), req=req), theirs)


@pytest.mark.parametrize("mode", MODES)
def test_numpy_arrays(mode, backend):
    mx.util.set_np()
    try:
        case = LayerCase(mode, layers=2)
        layer = case.layer(backend)
        check_equal(train(case, layer), train(case, layer, detach=True))
    finally:
        mx.util.reset_np()


def test_states_that_the_loss_depends_on_are_not_cut_off_within_a_recording():
    case = LayerCase(layers=2)
    layer = case.layer()
    x, states = case.arguments()
    with mx.autograd.record():
        _, after = layer(x, states)
        output, _ = layer(x, after)
        loss = output.sum()
    loss.backward()
    found = layer.l0_i2h_weight.grad().asnumpy()
    with mx.autograd.record():
        _, after = layer(x, states)
        loss = layer(x, [state.detach() for state in after])[0].sum()
    loss.backward()
    assert not np.allclose(found, layer.l0_i2h_weight.grad().asnumpy(), rtol=1e-3)


def test_a_copy_of_a_layer_that_was_trained_is_trained_on_its_own():
    case = LayerCase(layers=2)
    layer = case.layer()
    wanted = train(case, layer)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        twin.collect_params().setattr("grad_req", "null")  # MXNet's copies have no gradients
        check_equal(train(case, twin), wanted)


def test_threads_that_record_on_one_layer(backend):
    case = LayerCase("gru", layers=2)
    layer = case.layer(backend)
    layer.collect_params().setattr("grad_req", "null")

    def work(_):
        found = []
        for k in range(40):
            x = mx.nd.array(np.resize(case.x, (1 + k % 5, *case.x.shape[1:])))
            x.attach_grad()
            with mx.autograd.record():
                loss = layer(x).sum()
            loss.backward()
            found.append(x.grad.asnumpy())
        return found

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(work, range(4)))
    for found in results:
        for array, other in zip(found, results[0]):
            np.testing.assert_array_equal(array, other)
