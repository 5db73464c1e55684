"""A recurrent layer with weights, inputs and what the oracle makes of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import reference as ref
from hypothesis import strategies as st

import fastrnn
from fastrnn.mxnet import import_mxnet

mx = import_mxnet()

MODES = ref.MODES
# Hypothesis's draws for a small LayerCase.
ANY_SIZE = {
    "mode": st.sampled_from(MODES),
    "T": st.integers(1, 9),
    "N": st.integers(1, 9),
    "H": st.integers(1, 17),
    "directions": st.integers(1, 2),
    "seed": st.integers(0, 1000),
}


def layer_class(mode: str, module: Any = fastrnn) -> Any:
    return {"lstm": module.LSTM, "gru": module.GRU}.get(mode, module.RNN)


@dataclass
class LayerCase:
    """Random weights and inputs of one layer, and the oracle's results and gradients."""

    mode: str = "lstm"
    T: int = 4
    N: int = 3
    I: int = 5  # noqa: E741
    H: int = 6
    layers: int = 1
    directions: int = 1
    projection: int = 0
    clip: Optional[ref.Clip] = None
    lengths: Any = False  # True: any, or one for each row
    layout: str = "TNC"
    dtype: str = "float32"
    states: bool = True  # whether they are given to the layer, rather than left at zero
    seed: int = 0
    layer_norm: bool = False
    masks: Any = None  # what dropout multiplies the outputs of all layers but the last by

    def __post_init__(self):
        rng = np.random.RandomState(self.seed)
        blocks, outputs = self.layers * self.directions, self.projection or self.H
        stack = {
            "layers": self.layers,
            "directions": self.directions,
            "projection": self.projection,
            "layer_norm": self.layer_norm,
        }
        self.weights = ref.random_stack(rng, self.mode, self.I, self.H, **stack)
        self.x = rng.randn(self.T, self.N, self.I)
        self.h0 = 0.5 * rng.randn(blocks, self.N, outputs) * self.states
        self.c0 = 0.3 * rng.randn(blocks, self.N, self.H) * self.states
        self.row_lengths = rng.randint(0, self.T + 1, self.N) if self.lengths else None
        if isinstance(self.lengths, list):
            self.row_lengths = np.array(self.lengths)
        if self.mode != "lstm":
            self.c0 = None
        self._round_to_dtype()
        options = {"directions": self.directions, "lengths": self.row_lengths, "clip": self.clip}
        options["masks"] = self.masks
        self.result = ref.stack_forward(
            self.mode, self.x, self.h0, self.c0, self.weights, **options
        )
        # Gradients arrive at every output, at the states only where they are returned.
        self.d_output = self._rounded(rng.randn(*self.result.output.shape))
        self.d_h = self._rounded(rng.randn(*self.h0.shape)) * self.states
        self.d_c = None
        if self.c0 is not None:
            self.d_c = self._rounded(rng.randn(*self.c0.shape)) * self.states
        self.gradients = ref.stack_backward(self.result, self.d_output, self.d_h, self.d_c)

    def _rounded(self, array):
        return array.astype(self.dtype).astype(np.float64)

    def _round_to_dtype(self):
        # What the layer gets and what the oracle gets shall be the same numbers.
        self.x, self.h0 = self._rounded(self.x), self._rounded(self.h0)
        self.c0 = None if self.c0 is None else self._rounded(self.c0)
        self.weights = [
            ref.Weights(*(None if a is None else self._rounded(a) for a in w)) for w in self.weights
        ]

    # The layer and its arguments.

    def layer(self, backend="auto", module=fastrnn, **options):
        """Make the layer, initialized with the case's weights."""
        options = {**self._options(), **options}
        if module is fastrnn:
            options["backend"] = backend
        layer = layer_class(self.mode, module)(self.H, self.layers, **options)
        layer.initialize(mx.init.Zero(), ctx=options.pop("ctx", None))
        self.fill(layer)
        return layer

    def _options(self):
        options = {
            "layout": self.layout,
            "bidirectional": self.directions == 2,
            "input_size": self.I,
            "dtype": self.dtype,
        }
        if self.mode.startswith("rnn"):
            options["activation"] = self.mode[len("rnn_") :]
        if self.projection:
            options["projection_size"] = self.projection
        if self.clip is not None:
            options["state_clip_min"], options["state_clip_max"] = self.clip.low, self.clip.high
            options["state_clip_nan"] = self.clip.nan
        if self.layer_norm:
            options["layer_norm"] = True
        if self.lengths:
            options["use_sequence_length"] = True
        return options

    def parameters(self):
        """Yield the layer's name and the index and field of each weight."""
        for k, weights in enumerate(self.weights):
            for field, array in zip(weights._fields, weights):
                if array is not None:
                    yield f"{'lr'[k % self.directions]}{k // self.directions}_{field}", k, field

    def fill(self, layer):
        for name, k, field in self.parameters():
            getattr(layer, name).set_data(self.array(getattr(self.weights[k], field)))

    def array(self, values, ctx=None, dtype=None):
        if mx.util.is_np_array():
            return mx.np.array(values, dtype=dtype or self.dtype, ctx=ctx)
        return mx.nd.array(values, dtype=dtype or self.dtype, ctx=ctx)

    def arguments(self, ctx=None):
        """Return what the layer is called with: [input], [input, states] or all with lengths."""
        x = self.x.swapaxes(0, 1) if self.layout == "NTC" else self.x
        arguments = [self.array(x, ctx)]
        if self.states:
            states = [self.h0] if self.c0 is None else [self.h0, self.c0]
            arguments.append([self.array(state, ctx) for state in states])
        elif self.lengths:
            arguments.append(None)
        if self.lengths:
            arguments.append(self.array(self.row_lengths, ctx, "int32"))
        return arguments

    # Comparison with the oracle.

    def check_outcome(self, outcome):
        """Compare what a call returned."""
        output, states = outcome if self.states else (outcome, [])
        expected = self.result.output
        expected = expected.swapaxes(0, 1) if self.layout == "NTC" else expected
        ref.assert_close(output, expected, "output", self.dtype)
        assert np.dtype(output.dtype) == self.dtype
        for name, state, wanted in zip("hc", states, (self.result.h, self.result.c)):
            ref.assert_close(state, wanted, f"state {name}", self.dtype)
        assert len(states) == (0 if not self.states else 2 if self.mode == "lstm" else 1)

    def backward(self, outcome, ctx=None):
        """Run the backward pass from the case's gradients of output and states."""
        output, states = outcome if self.states else (outcome, [])
        d_output = self.d_output
        d_output = d_output.swapaxes(0, 1) if self.layout == "NTC" else d_output
        grads = [d_output, self.d_h, self.d_c][: 1 + len(states)]
        mx.autograd.backward([output, *states], [self.array(grad, ctx) for grad in grads])

    def check_gradients(self, layer, arguments, times=1, ctx=None):
        """Compare the gradients of all arguments and parameters."""
        wanted = self.gradients
        d_x = wanted.x.swapaxes(0, 1) if self.layout == "NTC" else wanted.x
        ref.assert_close(arguments[0].grad, times * d_x, "gradient of the input", self.dtype)
        if self.states:
            for name, state, grad in zip("hc", arguments[1], (wanted.h0, wanted.c0)):
                ref.assert_close(state.grad, times * grad, f"gradient of {name}0", self.dtype)
        for name, k, field in self.parameters():
            grad = times * getattr(wanted.weights[k], field)
            ref.assert_close(getattr(layer, name).grad(ctx), grad, name, self.dtype)

    def check(self, layer, net=None, ctx=None, train_mode=True):
        """Run `net` (the layer itself by default) with and without recording, and backward."""
        net = net or layer
        self.check_outcome(net(*self.arguments(ctx)))
        self.check_learning(layer, net, ctx, train_mode)

    def check_learning(self, layer, net=None, ctx=None, train_mode=True):
        """Run `net` with recording, and backward.

        With gradients attached to what the layer is called with, and to what that is computed from.
        """
        for computed in (False, True):
            self.check_recorded(layer, net or layer, ctx, train_mode, computed)

    def check_recorded(self, layer, net, ctx, train_mode, computed):
        arguments = self.arguments(ctx)
        attach(arguments)
        with mx.autograd.record(train_mode):
            outcome = net(*(from_others(arguments) if computed else arguments))
        self.check_outcome(outcome)
        self.backward(outcome, ctx)
        self.check_gradients(layer, arguments, ctx=ctx)


def attach(arguments, req="write"):
    """Attach gradients to the input and the states of a call."""
    for array in [arguments[0], *(arguments[1] if len(arguments) > 1 and arguments[1] else [])]:
        array.attach_grad(req)


def from_others(arguments):
    """Return a call's arguments with an input and states that are computed from these."""
    x, *others = arguments
    if others and others[0]:
        others[0] = [state.copy() for state in others[0]]
    return [x.copy(), *others]


class Parent(mx.gluon.HybridBlock):
    """A net that holds a recurrent layer and hands it what comes."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def hybrid_forward(self, F, x, states=None, lengths=None):
        if lengths is not None:
            return self.layer(x, states, lengths)
        return self.layer(x) if states is None else self.layer(x, states)


def with_reserves(symbol):
    """Return a graph as earlier versions made it: a layer's last output is its reserve."""
    graph = json.loads(symbol.tojson())
    for node in graph["nodes"]:
        if node["op"] == "_fastrnn_rnn":
            (inner,) = node["subgraphs"]
            inner["nodes"].append(
                {"op": "_zeros", "name": "reserve", "inputs": [], "attrs": {"shape": "(1,)"}}
            )
            inner["heads"].append([len(inner["nodes"]) - 1, 0, 0])
            inner.pop("node_row_ptr", None)
    del graph["node_row_ptr"]  # MXNet counts outputs by itself
    return mx.sym.load_json(json.dumps(graph))
