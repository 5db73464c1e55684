"""Bad input to the layers: what is said names the argument, what came and what was wanted."""

from __future__ import annotations

import numpy as np
import pytest
from cases import LayerCase, mx

import fastrnn
from fastrnn.mxnet import checks, native

ones = mx.nd.ones


def sparse(shape):
    return mx.nd.sparse.zeros("row_sparse", shape)


@pytest.mark.parametrize("hybrid", [False, True], ids=["eager", "hybridized"])
@pytest.mark.parametrize(
    "inputs, error, message",
    [
        (np.ones((4, 3, 5), "float32"), TypeError, "inputs: expected an MXNet array, got ndarray"),
        (None, TypeError, "inputs: expected an MXNet array, got NoneType"),
        (ones((4, 5)), ValueError, r"inputs: expected shape \(T, N, 5\).*got \(4, 5\)"),
        (ones((4, 3, 5, 1)), ValueError, r"inputs: expected shape \(T, N, 5\).*\(4, 3, 5, 1\)"),
        (ones((4, 3, 6)), ValueError, r"inputs: expected shape \(T, N, 5\).*got \(4, 3, 6\)"),
        (
            ones((4, 3, 5), dtype="float64"),
            TypeError,
            "inputs: expected dtype float32, got float64",
        ),
        (ones((4, 3, 5), dtype="int32"), TypeError, "inputs: expected dtype float32, got int32"),
        (sparse((4, 3, 5)), TypeError, "inputs: expected a dense array, got row_sparse"),
    ],
)
def test_inputs(inputs, error, message, hybrid, backend):
    layer = LayerCase().layer(backend)
    layer.hybridize(hybrid)
    with pytest.raises(error, match=message):
        layer(inputs)


def test_inputs_in_the_other_layout(backend):
    layer = LayerCase(layout="NTC").layer(backend)
    with pytest.raises(ValueError, match=r"inputs: expected shape \(N, T, 5\)"):
        layer(ones((4, 5, 3)))


def test_empty_inputs(backend):
    layer = LayerCase().layer(backend)
    with mx.util.np_shape(True), pytest.raises(
        ValueError, match=r"each at least 1, got \(0, 3, 5\)"
    ):
        layer(ones((0, 3, 5)))


@pytest.mark.parametrize("hybrid", [False, True], ids=["eager", "hybridized"])
@pytest.mark.parametrize(
    "states, error, message",
    [
        ([ones((1, 3, 6))], ValueError, r"states: expected 2 array\(s\), got 1"),
        (ones((1, 3, 6)), ValueError, r"states: expected 2 array\(s\), got 1"),
        ([ones((1, 3, 6))] * 3, ValueError, r"states: expected 2 array\(s\), got 3"),
        (
            [ones((1, 3, 6)), ones((1, 4, 6))],
            ValueError,
            r"states\[1\]: expected shape \(1, 3, 6\), got \(1, 4, 6\)",
        ),
        (
            [ones((3, 6)), ones((1, 3, 6))],
            ValueError,
            r"states\[0\]: expected shape \(1, 3, 6\), got \(3, 6\)",
        ),
        (
            [ones((1, 3, 6)), ones((1, 3, 6), dtype="float16")],
            TypeError,
            r"states\[1\]: expected dtype float32, got float16",
        ),
        (
            [np.ones((1, 3, 6)), ones((1, 3, 6))],
            TypeError,
            r"states\[0\]: expected an MXNet array, got ndarray",
        ),
        (
            [sparse((1, 3, 6)), ones((1, 3, 6))],
            TypeError,
            r"states\[0\]: expected a dense array, got row_sparse",
        ),
        (5, TypeError, "states: expected a list of MXNet arrays, got int"),
    ],
)
def test_states(states, error, message, hybrid, backend):
    layer = LayerCase().layer(backend)
    layer.hybridize(hybrid)
    with pytest.raises(error, match=message):
        layer(ones((4, 3, 5)), states)


@pytest.mark.parametrize("how", ["operator", "graph"])
@pytest.mark.parametrize(
    "head",
    [
        ones((4, 3, 6), dtype="float64"),
        ones((4, 3, 6), dtype="float16"),
        ones((1,)),
        ones((5, 3, 6)),
    ],
    ids=["float64", "float16", "short", "long"],
)
@pytest.mark.parametrize("where", ["output", "state", "cell state"])
def test_gradients_that_do_not_fit_the_outputs(where, head, how):
    if not native.STATUS.usable:
        pytest.skip(native.STATUS.reason)
    layer = LayerCase(N=3, T=4, H=6).layer()
    if how == "graph":
        layer.l0_h2h_bias.grad_req = "add"
    states = [ones((1, 3, 6)), ones((1, 3, 6))]
    with mx.autograd.record():
        output, states = layer(ones((4, 3, 5)), states)
    outputs = {"output": output, "state": states[0], "cell state": states[1]}
    with pytest.raises(mx.MXNetError, match=f"gradient of the {where} has size {head.size} and"):
        outputs[where].backward(head)
        layer.l0_i2h_weight.grad().wait_to_read()


def test_a_device_without_the_parameters(backend):
    layer = LayerCase().layer(backend)
    with pytest.raises(RuntimeError, match=r"not initialized on context cpu\(1\)"):
        layer(ones((4, 3, 5), ctx=mx.cpu(1)))


@pytest.mark.parametrize(
    "lengths, error, message",
    [
        ([1, 2, 3], TypeError, "sequence_length: expected an MXNet array, got list"),
        (ones((2,)), ValueError, r"sequence_length: expected shape \(3,\), got \(2,\)"),
        (ones((3, 1)), ValueError, r"sequence_length: expected shape \(3,\), got \(3, 1\)"),
        (mx.nd.array([1, 5, 2]), ValueError, "sequence_length: expected lengths from 0 to 4, got"),
        (mx.nd.array([1, -1, 2]), ValueError, "sequence_length: expected lengths from 0 to 4, got"),
        (mx.nd.array([1, np.nan, 2]), ValueError, "sequence_length: expected lengths from 0 to 4"),
        (None, ValueError, "sequence_length: expected with use_sequence_length=True .* got None"),
    ],
)
def test_lengths(lengths, error, message, backend):
    layer = LayerCase(lengths=True).layer(backend)
    with pytest.raises(error, match=message):
        layer(ones((4, 3, 5)), sequence_length=lengths)


def test_lengths_for_a_layer_that_would_ignore_them(backend):
    layer = LayerCase().layer(backend)
    with pytest.raises(ValueError, match="sequence_length: expected with use_sequence_length=True"):
        layer(ones((4, 3, 5)), sequence_length=ones((3,)))


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"hidden_size": 0}, ValueError, "hidden_size: expected at least 1, got 0"),
        ({"hidden_size": 2.5}, TypeError, "hidden_size: expected an integer, got 2.5"),
        ({"num_layers": 0}, ValueError, "num_layers: expected at least 1, got 0"),
        ({"num_layers": True}, TypeError, "num_layers: expected an integer, got True"),
        ({"input_size": -1}, ValueError, "input_size: expected at least 0, got -1"),
        ({"projection_size": -2}, ValueError, "projection_size: expected at least 1, got -2"),
        ({"layout": "NCT"}, ValueError, "layout: expected 'TNC' or 'NTC', got 'NCT'"),
        ({"dropout": 1.5}, ValueError, "dropout: expected a probability .* got 1.5"),
        ({"dropout": "much"}, TypeError, "dropout: expected a number, got 'much'"),
        ({"dropout": None}, TypeError, "dropout: expected a number, got None"),
        ({"dropout": -0.1}, ValueError, "dropout: expected a probability .* got -0.1"),
        ({"dtype": "int32"}, TypeError, "dtype: expected float16, float32 or float64, got 'int32'"),
        ({"dtype": "real"}, TypeError, "dtype: expected .* got 'real'"),
        ({"state_clip_min": "low", "state_clip_max": 1}, TypeError, "clip_min: expected a number"),
        (
            {"state_clip_min": 1.0, "state_clip_max": -1.0},
            ValueError,
            "state_clip_min: expected at most state_clip_max=-1.0, got 1.0",
        ),
        ({"backend": "cudnn"}, ValueError, "backend: expected one of auto, native, gluon, got 'cu"),
    ],
)
def test_options(options, error, message):
    with pytest.raises(error, match=message):
        fastrnn.LSTM(**{"hidden_size": 4, **options})


@pytest.mark.parametrize("activation", ["softmax", None, 3])
def test_activation(activation):
    message = f"activation: expected 'relu' or 'tanh', got {activation!r}"
    with pytest.raises(ValueError, match=message):
        fastrnn.RNN(4, activation=activation)


def test_arrays_on_a_gpu_beside_arrays_on_a_cpu(monkeypatch):
    assert checks._one_memory(mx.cpu(0), mx.cpu_pinned(0))
    assert checks._one_memory(mx.gpu(1), mx.gpu(1))
    assert not checks._one_memory(mx.gpu(0), mx.gpu(1))
    assert not checks._one_memory(mx.cpu(0), mx.gpu(0))


def test_unknown_arguments_are_refused():
    with pytest.raises(TypeError, match="bidirektional"):
        fastrnn.GRU(4, bidirektional=True)
    layer = LayerCase().layer()
    with pytest.raises(TypeError, match="state"):
        layer(ones((4, 3, 5)), state=None)


@pytest.mark.parametrize("kind", ["GRU", "RNN"])
@pytest.mark.parametrize("name", ["projection_size", "state_clip_max", "lstm_state_clip_min"])
def test_other_layers_refuse_what_only_an_lstm_has(name, kind):
    with pytest.raises(TypeError, match=f"{name}: not an argument of {kind}, got 2"):
        getattr(fastrnn, kind)(4, **{name: 2})


def test_an_lstm_refuses_its_options_other_names():
    with pytest.raises(TypeError, match="lstm_state_clip_min: not an argument of LSTM, got -1"):
        fastrnn.LSTM(4, lstm_state_clip_min=-1)
