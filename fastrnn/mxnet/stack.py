"""A stack of layers on one set of operators, run eagerly or traced into a graph."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import AbstractSet, Any, Dict, Iterable, List, Optional, Sequence, Tuple

from fastrnn.cell import Cell
from fastrnn.mxnet import (
    dropout,
    import_mxnet,
    lengths,
    mixed_precision,
    native,
    nodes,
    rnn_operator,
    unrolled,
)
from fastrnn.mxnet.dropout import Rates

mx: Any = import_mxnet()

# The sets of operators: the native one; MXNet's RNN, for all layers at once or for each; plain
# operators, step by step.
NATIVE, FUSED, LAYERWISE, UNROLLED = "native", "fused", "layerwise", "unrolled"

_SMALL = 1 << 16  # L*T*N*D*H of layers whose reserve takes about a megabyte

_Outcome = Tuple[Any, List[Any]]


@dataclass(frozen=True)
class Stack:
    """What a recurrent layer computes, and on which operators."""

    cell: Cell
    layers: int
    directions: int
    rates: Rates
    layout: str
    dtype: Any  # the arrays' dtype, as NumPy's
    computed_in: str
    operators: str
    apart: bool = False  # each layer of a graph is an operator of its own

    @cached_property
    def parameter_names(self) -> List[List[List[str]]]:
        """The parameters' names, for each layer and direction."""
        return [
            [
                [f"{d}{layer}_{name}" for name in self.cell.weight_names]
                for d in "lr"[: self.directions]
            ]
            for layer in range(self.layers)
        ]

    def run(
        self,
        F: Any,
        inputs: Any,
        states: Sequence[Any],
        sequence_length: Any,
        params: Dict[str, Any],
        adding: Optional[AbstractSet[str]] = None,
        zero_states: bool = False,
    ) -> _Outcome:
        """Run all layers.

        Parameters
        ----------
        F
            `mxnet.nd` or `mxnet.sym`. Calls with arrays that autograd records need
            `is_one_operator`.
        inputs
            [T, N, I] or [N, T, I], by the layout.
        states
            [L*D, N, P], and for the LSTM [L*D, N, H].
        sequence_length
            [N] of any type, or None; with `adding` of int32.
        params
            Parameters by their names.
        adding
            Of a graph: the arrays to whose gradients ``backward`` may add, ``inputs``, ``state0``,
            ``state1`` and parameters by their names; None: any, and the outputs get the names of
            those of MXNet's RNN.
        zero_states
            Whether the states are zeros, and their gradients and the last states not wanted. The
            native operator then has none, and a graph none as inputs.

        Returns
        -------
        output, states
        """
        # MXNet's own node already has the names that Gluon's layer gives.
        renamed = F is mx.sym and (self.operators != FUSED or self._converted)
        name = _next_name() if renamed else ""
        numpy = mx.util.is_np_array()
        if numpy:
            inputs, *states = (a.as_nd_ndarray() for a in (inputs, *states))
            params = {key: a.as_nd_ndarray() for key, a in params.items()}
            if sequence_length is not None:
                sequence_length = sequence_length.as_nd_ndarray()
        if sequence_length is not None and adding is None:
            sequence_length = _integers(F, sequence_length)
        zero_states = zero_states and self.operators == NATIVE
        inputs, states, params = self._own(F, inputs, [] if zero_states else states, params, adding)
        if self.layout == "NTC":
            inputs = F.swapaxes(inputs, 0, 1)
        output, states = self._all_layers(
            F, inputs, None if zero_states else states, sequence_length, params, name
        )
        if self._converted:
            output, *states = (F.cast(a, dtype=self.dtype.name) for a in (output, *states))
        # Name the outputs of a graph that others see. A node's only output has its name already.
        own_name = zero_states and self._is_one_node and not self._converted
        if renamed and adding is None and not own_name:
            output, states = _named(name, output, states)
        if self.layout == "NTC":
            output = F.swapaxes(output, 0, 1)
        if numpy:
            output, *states = (a.as_np_ndarray() for a in (output, *states))
        return output, list(states)

    @cached_property
    def _is_plain(self) -> bool:
        """Whether the layers are native and without dropout."""
        return self.operators == NATIVE and not any(self.rates)

    @cached_property
    def _is_one_node(self) -> bool:
        """Whether all layers of a graph are one operator."""
        together = not self.apart and nodes.can_be_inferred(self.cell, self.layers, self.directions)
        return self._is_plain and (together or self.layers == 1)

    def is_one_operator(self, inputs: Any) -> bool:
        """Whether a call that autograd records, and so is to be one node, is one operator.

        Its outputs must be the layer's. The reserve is another one, for which MXNet makes a
        gradient of zeros, so it must be small.
        """
        if not self._is_plain or self._converted or self.layout != "TNC" or mixed_precision():
            return False
        steps, rows, _ = inputs.shape
        units = self.directions * self.cell.hidden_size
        return self.layers * steps * rows * units <= _SMALL

    @cached_property
    def _converted(self) -> bool:
        """Whether the operators compute in a type other than the arrays'."""
        return self.computed_in != self.dtype.name

    def _own(
        self,
        F: Any,
        inputs: Any,
        states: Sequence[Any],
        params: Dict[str, Any],
        adding: Optional[AbstractSet[str]],
    ) -> Tuple[Any, List[Any], Dict[str, Any]]:
        """Put MXNet's operators between the arrays and ours, for gradients and types.

        Neither the native operator nor MXNet's RNN can add to a gradient, nor can casts on a CPU.
        """
        native_graph = F is mx.sym and self.operators == NATIVE
        cast: Optional[Any] = None
        if self._converted:
            cast = partial(F.cast, dtype=self.computed_in)
        elif native_graph and mixed_precision():
            # oneDNN's amp_cast, which MXNet takes on a CPU, does not know float64.
            cast = F.cast if self.computed_in == "float64" else F.amp_cast
            cast = partial(cast, dtype=self.computed_in)

        def own(name: str, array: Any) -> Any:
            # Dropout adds to gradients itself, and MXNet's `bind` mistakes an identity before it.
            dropped = cast is None and self._drops(name)
            needed = (adding is None or name in adding) and not dropped
            return F.identity(array) if needed else array

        if F is mx.sym:
            inputs = own("inputs", inputs)
            states = [own(f"state{k}", state) for k, state in enumerate(states)]
        if native_graph:
            params = {key: own(key, a) for key, a in params.items()}
        if cast is not None:
            inputs, *states = (cast(a) for a in (inputs, *states))
            params = {key: cast(a) for key, a in params.items()}
        return inputs, list(states), params

    def _drops(self, name: str) -> bool:
        """Whether the first operator that reads an array is dropout."""
        if name == "inputs":
            return self.rates.inputs > 0
        return name.endswith("_h2h_weight") and self.rates.weights > 0

    def _all_layers(
        self,
        F: Any,
        data: Any,
        states: Optional[Sequence[Any]],
        sequence_length: Any,
        params: Dict[str, Any],
        name: str,
    ) -> _Outcome:
        """Run the layers with dropout.

        `data` is [T, N, I]. Without states they are zeros, and none are returned; for the native
        operator only.
        """
        weights = [[[params[key] for key in d] for d in layer] for layer in self.parameter_names]
        # A graph's operators decide whether they drop in each run.
        drops = F is mx.sym or mx.autograd.is_training()
        rates = self.rates if drops else Rates()
        if self.operators == FUSED:
            assert states is not None
            return rnn_operator.layers(F, self.cell, data, states, weights, self.computed_in)
        seeded = self.operators == NATIVE and any(self.cell.noise) and drops
        if self.operators == NATIVE and not any(rates) and (F is mx.nd or self._is_one_node):
            seed = dropout.seed(F) if seeded else None
            return self._native(F, data, states, weights, sequence_length, name, seed)
        own: List[Any] = [None] * self.layers
        if states is not None:
            parts = (nodes.split(F, state, self.layers, self.directions) for state in states)
            own = list(zip(*parts))
        last, seed = [], None
        for k, of_layer in enumerate(weights):
            if k:
                data = dropout.numbers(F, data, rates.between)
            data = dropout.sequences(F, data, rates.inputs)
            own_weights = dropout.of_weights(F, of_layer, rates.weights, self.computed_in)
            if seeded and not k:  # after the masks above, in the order in which a graph draws
                seed = dropout.seed(F)
            data, after = self._layer(F, k, data, own[k], own_weights, sequence_length, seed, name)
            data = dropout.sequences(F, data, rates.outputs)
            last.append(after)
        return data, last[0] if self.layers == 1 else [F.concat(*s, dim=0) for s in zip(*last)]

    def _native(
        self,
        F: Any,
        data: Any,
        states: Any,
        weights: Sequence[Sequence[Sequence[Any]]],
        sequence_length: Any,
        name: str,
        seed: Any,
        first_layer: int = 0,
    ) -> _Outcome:
        """Run layers by one native operator."""
        arguments = (self.cell, data, states, weights, self.computed_in, sequence_length)
        if F is mx.sym:
            own = f"{name}_l{first_layer}"
            if self._is_one_node:
                own = f"{name}_layers" if states or self._converted else name
            return native.graph_layers(*arguments, own, seed, first_layer)
        recorded = mx.autograd.is_recording()
        return native.layers(*arguments, seed, first_layer, recorded=recorded)

    def _layer(
        self,
        F: Any,
        number: int,
        data: Any,
        states: Any,
        weights: Sequence[Sequence[Any]],
        sequence_length: Any,
        seed: Any,
        name: str,
    ) -> _Outcome:
        """Run one layer; `name` is the stack's."""
        cell, dtype = self.cell, self.computed_in
        if self.operators == UNROLLED:
            return unrolled.layer(F, cell, data, states, weights, sequence_length)
        if self.operators == LAYERWISE and sequence_length is None:
            return rnn_operator.layers(F, cell, data, states, [weights], dtype)
        if self.operators == LAYERWISE:
            return lengths.layer(F, cell, data, states, weights, sequence_length, dtype)
        return self._native(F, data, states, [weights], sequence_length, name, seed, number)


def _integers(F: Any, lengths: Any) -> Any:
    """Return the lengths as operators take them, which write no gradient for them."""
    return F.BlockGrad(F.cast(lengths, dtype="int32"))


def _next_name() -> str:
    """Return the name that MXNet would give the next RNN node."""
    return mx.sym.RNN(mx.sym.var("data"), state_size=1, num_layers=1, mode="gru").name


def _named(name: str, output: Any, states: Sequence[Any]) -> _Outcome:
    """Give symbols the names of the outputs of MXNet's RNN node."""
    names = [name, f"{name}_state", f"{name}_statecell"]
    with mx.name.NameManager():  # adds no prefix
        output, *states = (
            mx.sym.identity(symbol, name=own) for symbol, own in zip([output, *states], names)
        )
    return output, states


class OwnStates(List[Any]):
    """Initial states that the caller did not pass; the call returns no states."""

    def __init__(self, states: Iterable[Any], zeros: bool) -> None:
        super().__init__(states)
        self.zeros = zeros

    def of_one_call(self) -> OwnStates:
        """Return the same, in arrays to which autograd may attach nodes."""
        return OwnStates((state.detach() for state in self), self.zeros)


def _moved(array: Any, device: Any) -> Any:
    """Return an array on a device.

    MXNet's copy from one kind of CPU device to another does not add to a gradient, so another
    operator comes first.
    """
    return array if array.ctx == device else (array * 1).as_in_context(device)


def on_one_device(parameters: Dict[str, Any], arrays: Dict[str, Any]) -> Dict[str, Any]:
    """Return the parameters' arrays on one device, as graphs take them.

    Where a parameter is on another of MXNet's kinds of CPU device, `data` returns that array.
    """
    kinds = ("cpu", "gpu")
    if all(c.device_type in kinds for p in parameters.values() for c in p.list_ctx()):
        return arrays
    return {
        name: array
        if array.ctx.device_type in kinds
        else _moved(array, mx.cpu(array.ctx.device_id))
        for name, array in arrays.items()
    }


class Recorder:
    """Runs eager calls that autograd records, each as one node, as Gluon's are.

    With several nodes, those that the loss does not depend on, such as the ones of carried states,
    would not be cleared by ``backward``.
    """

    def __init__(
        self,
        stack: Stack,
        states: int,
        has_lengths: bool,
        adding: AbstractSet[str],
        flags: Sequence[Tuple[str, Any]],
    ) -> None:
        """Trace the stack; `flags` are those of `hybridize`."""
        numpy = mx.util.is_np_array()

        def var(name: str) -> Any:
            symbol = mx.sym.var(name)
            return symbol.as_np_ndarray() if numpy else symbol

        keys = [key for layer in stack.parameter_names for direction in layer for key in direction]
        of_states = [f"state{k}" for k in range(states)]
        self._own_names = ["inputs", *of_states, *(["sequence_length"] if has_lengths else [])]
        with mx.name.NameManager(), mx.AttrScope():
            output, after = stack.run(
                mx.sym,
                var("inputs"),
                [var(name) for name in of_states],
                var("sequence_length") if has_lengths else None,
                {key: var(key) for key in keys},
                adding,
                zero_states=not states,
            )
        group = mx.sym.Group([output, *after], type(output))
        self._names = group.list_inputs()
        self._call = mx.nd.CachedOp(group, flags)

    def __call__(
        self, inputs: Any, states: Sequence[Any], sequence_length: Any, params: Dict[str, Any]
    ) -> _Outcome:
        """Run the layers. The first three arguments are moved to the device of `params`."""
        device = next(iter(params.values())).ctx
        own = [inputs, *states]
        if sequence_length is not None:
            if mx.util.is_np_array():
                sequence_length = sequence_length.as_nd_ndarray()
            own.append(_integers(mx.nd, sequence_length))
        own = [_moved(array, device) for array in own]
        arrays = dict(zip(self._own_names, own))
        outcome = self._call(*(arrays[k] if k in arrays else params[k] for k in self._names))
        output, *after = outcome if isinstance(outcome, list) else [outcome]
        return output, after
