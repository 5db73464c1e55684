"""Gluon's recurrent layers, with the same arguments, parameters and numbers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from fastrnn import checks, fused, lengths, native, unrolled
from fastrnn._mxnet import import_mxnet
from fastrnn.cell import Cell

mx: Any = import_mxnet()

_BACKENDS = ("auto", "native", "gluon")
_GLUON = {
    "stack": "MXNet's RNN operator",
    "layerwise": "MXNet's RNN operator, layer by layer",
    "unrolled": "plain operators, step by step",
}


@dataclass(frozen=True)
class Backend:
    """Which operators a layer runs on, and why."""

    name: str  # native or gluon
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def _states_of(F: Any, states: Any, layers: int, parts: Sequence[range]) -> List[Any]:
    """Return the states [L*D, N, H] of parts of the layers."""
    if F is mx.nd and not mx.autograd.is_recording():  # views cost a fifth of copies
        block = states.shape[0] // layers
        return [states[part[0] * block : (part[-1] + 1) * block] for part in parts]
    # Through split and concat, a graph finds out N; through slices it does not.
    each = F.split(states, num_outputs=layers, axis=0)
    return [each[p[0]] if len(p) == 1 else F.concat(*(each[k] for k in p), dim=0) for p in parts]


class _ZeroStates(List[Any]):
    """States that the caller did not give and does not get back."""


def _choose(backend: Any) -> Tuple[str, str]:
    """Return the backend that was asked for, and by what."""
    source, choice = "backend", backend
    if choice is None:
        source, choice = "FASTRNN_BACKEND", os.environ.get("FASTRNN_BACKEND", "auto")
    if choice not in _BACKENDS:
        raise ValueError(f"{source}: expected one of {', '.join(_BACKENDS)}, got {choice!r}")
    return choice, f"{source}={choice}"


def _check_static_shape(static_shape: bool, operators: str, backend: Backend) -> None:
    """Refuse what MXNet's loop gets wrong."""
    if static_shape and operators == "unrolled":
        raise ValueError(
            "static_shape: expected False, since MXNet's foreach gives wrong results with it; "
            f"got True for a layer on {backend}"
        )


class _Layer(mx.gluon.rnn.rnn_layer._RNNLayer):
    """What the three layers share. It stands between MXNet's layers and MXNet's base of them."""

    def __init__(self, *options: Any, backend: Any = None, **kwargs: Any) -> None:
        # MXNet's layers pass all of their own options by position, in this order.
        hidden_size, num_layers, layout, dropout, _, input_size = options[:6]
        mode, projection_size = options[10:12]
        checks.sizes(hidden_size, num_layers, input_size, projection_size)
        checks.choices(mode, layout, dropout)
        self._choice, self._choice_source = _choose(backend)
        super().__init__(*options, **kwargs)
        checks.clipping(self._lstm_state_clip_min, self._lstm_state_clip_max)
        self._cell = Cell(
            mode,
            hidden_size,
            bool(self._projection_size),
            self._lstm_state_clip_min,
            self._lstm_state_clip_max,
            self._lstm_state_clip_nan,
        )
        names = ["i2h_weight", "h2h_weight", "i2h_bias", "h2h_bias"]
        names += ["h2r_weight"] if self._cell.projected else []
        self._parameter_names = [
            [[f"{d}{k}_{name}" for name in names] for d in "lr"[: self._dir]]
            for k in range(num_layers)
        ]
        self._decide(self._dtype)  # an impossible choice of backend is an error here already

    @property
    def backend(self) -> Backend:
        """Which operators the layer runs on, and why."""
        return self._runs_on

    def cast(self, dtype: Any) -> None:
        """Convert the parameters to `dtype`, and compute in it from now on.

        Raises
        ------
        TypeError
            `dtype` is no float.
        ValueError
            The layer's ``backend`` or ``static_shape`` was asked for and cannot be had in `dtype`.
        """
        self._decide(dtype)
        super().cast(dtype)

    def __setstate__(self, state: Dict[str, Any]) -> None:
        # A copy may wake up in a process with another library.
        self.__dict__.update(state)
        self._decide(self._dtype)

    def _decide(self, dtype: Any) -> None:
        """Choose the operators from the layer's options and the process, never from a device.

        A graph, once traced, serves all devices. An error leaves the layer as it was.
        """
        dtype = checks.float_type(dtype)
        # Without a GPU, MXNet has no recurrent operator in float16.
        half = dtype == np.float16 and not native.GPUS and self._obstacle("float16") is not None
        computed_in = "float32" if half else dtype.name
        note = "; float16 is computed in float32" if half else ""
        obstacle = self._obstacle(computed_in)
        if obstacle is None:
            operators, runs_on = "native", Backend("native", native.STATUS.reason + note)
        elif self._choice == "native":
            raise ValueError(f"{self._choice_source}: {obstacle}")
        else:
            operators = self._gluon_operators(computed_in)
            runs_on = Backend("gluon", f"{obstacle}; {_GLUON[operators]}{note}")
        if self._active:
            _check_static_shape(dict(self._flags)["static_shape"], operators, runs_on)
        self._numpy_type, self._computed_in = dtype.type, computed_in
        self._operators, self._runs_on = operators, runs_on

    def _obstacle(self, dtype: str) -> Optional[str]:
        """Say why the native operator is not used, if it is not."""
        if self._choice == "gluon":
            return self._choice_source
        if not native.STATUS.usable:
            return native.STATUS.reason
        if dtype not in native.STATUS.types:
            option = f"dtype={dtype}"
        elif self._cell.projected:
            option = f"projection_size={self._projection_size}"
        elif self._cell.clip_min is not None:
            option = f"state_clip_min={self._cell.clip_min}"
        else:
            return None
        return f"the native operator does not cover {option}"

    def _gluon_operators(self, dtype: str) -> str:
        """Choose the fastest of MXNet's own operators that are right."""
        cell = self._cell
        if cell.projected or cell.clip_min is not None:
            return "unrolled"
        if dtype == "float16" and self._use_sequence_length:
            return "unrolled"  # too narrow a range for what lengths.py does
        if dtype == "float64" and cell.mode == "rnn_relu":
            return "unrolled"  # the RNN operator rounds it to float32 on the CPU
        # On the CPU the RNN operator leaves dropout out, and see fused.py about deep stacks.
        dropped = self._dropout and self._num_layers > 1
        deep = cell.mode.startswith("rnn_") and self._num_layers > 2
        return "layerwise" if self._use_sequence_length or dropped or deep else "stack"

    def _collect_params_with_prefix(self, prefix: str = "") -> Dict[str, Any]:
        """Return the parameters by the names that MXNet's layer gives them in a file."""
        dot = f"{prefix}." if prefix else ""
        found = {}
        for key, parameter in self._reg_params.items():
            number, name = key[1:].split("_", 1)
            cell = f"{key[0]}_cell." if self._dir == 2 else ""
            found[f"{dot}_unfused.{number}.{cell}{name}"] = parameter
        for name, child in self._children.items():
            found.update(child._collect_params_with_prefix(dot + name))
        return found

    def infer_shape(self, inputs: Any, *args: Any) -> None:
        """Set the shapes that depend on the input: the first layer's i2h weights."""
        for d in "lr"[: self._dir]:
            weight = getattr(self, f"{d}0_i2h_weight")
            weight.shape = (weight.shape[0], inputs.shape[2])

    def hybridize(
        self,
        active: bool = True,
        backend: Optional[str] = None,
        clear: bool = True,
        static_alloc: bool = False,
        static_shape: bool = False,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Activate or deactivate tracing, as `mxnet.gluon.HybridBlock.hybridize`.

        Raises
        ------
        ValueError
            static_shape, for a layer on unrolled operators: MXNet's loop does not wait there for
            what it reads.
        """
        if active:
            _check_static_shape(static_shape, self._operators, self.backend)
        super().hybridize(active, backend, clear, static_alloc, static_shape, *args, **kwargs)

    def __call__(self, inputs: Any, states: Any = None, sequence_length: Any = None) -> Any:
        """Run the layer.

        Parameters
        ----------
        inputs
            [T, N, I], or [N, T, I] where the layout is NTC.
        states
            [L*D, N, H], for the LSTM a list of two; zeros by default. With a projection the first
            one is [L*D, N, P].
        sequence_length
            [N], each row's number of steps, for a layer made with ``use_sequence_length=True``. The
            native operator on a GPU does not wait for them to be known: there, what is below 0
            counts as 0, and what is above T as T.

        Returns
        -------
        output or (output, states)
            [T, N, D*H] or [N, T, D*H], zero past a row's length, and, where states were given,
            the states after each row's last step.

        Raises
        ------
        TypeError, ValueError
            An argument of the wrong kind, type, shape or device; lengths that are not from 0 to T.
        """
        eager = isinstance(inputs, mx.nd.NDArray)
        if not eager and not isinstance(inputs, mx.sym.Symbol):
            raise TypeError(f"inputs: expected an MXNet array, got {type(inputs).__name__}")
        if self._use_sequence_length != (sequence_length is not None):
            raise ValueError(
                "sequence_length: expected with use_sequence_length=True and only then, got "
                f"{sequence_length!r} with use_sequence_length={self._use_sequence_length}"
            )
        if isinstance(states, (mx.nd.NDArray, mx.sym.Symbol)):
            states = [states]
        if eager:
            states = self._checked_states(inputs, states, sequence_length)
        elif states is None:
            states = self._symbolic_zeros(inputs)
        if self._use_sequence_length:
            return mx.gluon.HybridBlock.__call__(self, inputs, states, sequence_length)
        return mx.gluon.HybridBlock.__call__(self, inputs, states)

    def _checked_states(self, inputs: Any, states: Any, sequence_length: Any) -> List[Any]:
        """Check the arguments of a call with arrays; the states default to zeros."""
        kind = self._numpy_type
        rows = checks.inputs(inputs, self._layout, self.l0_i2h_weight.shape[1], kind)
        if sequence_length is not None:
            steps = inputs.shape[self._layout.index("T")]
            checks.sequence_length(sequence_length, inputs, rows)
            # MXNet's operators would read beyond the arrays.
            if self._operators != "native" or inputs.ctx.device_type == "cpu":
                checks.lengths(sequence_length, steps)
        if states is None:
            return _ZeroStates(self.begin_state(rows, ctx=inputs.ctx, dtype=inputs.dtype))
        checks.states(states, inputs, kind, [info["shape"] for info in self.state_info(rows)])
        return list(states)

    def _symbolic_zeros(self, inputs: Any) -> List[Any]:
        """Zeros as states for a symbol, which does not know how many rows it will have."""
        data = mx.sym.BlockGrad(inputs.as_nd_ndarray())
        one = mx.sym.slice_axis(data, axis=2, begin=0, end=1)
        one = mx.sym.slice_axis(one, axis=self._layout.index("T"), begin=0, end=1)
        if self._layout == "NTC":
            one = mx.sym.swapaxes(one, 0, 1)
        zero = mx.sym.zeros_like(one)
        zeros = []
        for count, _, width in (info["shape"] for info in self.state_info()):
            # `repeat` knows the number of dimensions where N is still unknown.
            zeros.append(mx.sym.repeat(mx.sym.repeat(zero, count, axis=0), width, axis=2))
        return _ZeroStates(z.as_np_ndarray() if mx.util.is_np_array() else z for z in zeros)

    def forward(self, inputs: Any, states: Any, *args: Any) -> Any:
        """Run the layer on states that are there; those nobody gave are not returned."""
        # Decided here, per call: a graph always has both, and threads may share the layer.
        outcome = super().forward(inputs, states, *args)
        return outcome[0] if isinstance(states, _ZeroStates) else outcome

    def hybrid_forward(
        self, F: Any, inputs: Any, states: Any, sequence_length: Any = None, **params: Any
    ) -> Tuple[Any, List[Any]]:
        """Return output and states, on arrays or on symbols."""
        return self._forward_kernel(F, inputs, states, sequence_length, **params)

    def _forward_kernel(
        self, F: Any, inputs: Any, states: List[Any], sequence_length: Any, **params: Any
    ) -> Tuple[Any, List[Any]]:
        """Call the operators that the route names."""
        operators = self._operators
        numpy = mx.util.is_np_array()
        if numpy:
            operators = "layerwise" if operators == "stack" else operators
            inputs, *states = (a.as_nd_ndarray() for a in (inputs, *states))
            params = {name: a.as_nd_ndarray() for name, a in params.items()}
            if sequence_length is not None:
                sequence_length = sequence_length.as_nd_ndarray()
        if sequence_length is not None:  # no operator writes a gradient for it
            sequence_length = F.BlockGrad(F.cast(sequence_length, dtype="int32"))
        half = self._numpy_type is np.float16 and self._computed_in != "float16"
        differentiable = F is mx.sym or mx.autograd.is_recording()
        # Neither the native operator nor MXNet's own can add to a gradient; identity can. It also
        # copies, so that calls without a backward pass go without it.
        own = partial(F.cast, dtype=self._computed_in) if half else F.identity
        if half or differentiable:
            inputs, *states = (own(a) for a in (inputs, *states))
        if half or (differentiable and operators == "native"):
            params = {name: own(a) for name, a in params.items()}
        if operators == "stack":
            output, states = super()._forward_kernel(F, inputs, states, None, **params)
        else:
            swap = self._layout == "NTC"
            data = F.swapaxes(inputs, 0, 1) if swap else inputs
            run = self._runner(operators, differentiable, sequence_length)
            at_once = self._layers_at_once(F, operators, differentiable)
            output, states = self._all_layers(F, run, at_once, data, states, params)
            output = F.swapaxes(output, 0, 1) if swap else output
        if half:
            output, *states = (F.cast(a, dtype="float16") for a in (output, *states))
        if numpy:
            output, *states = (a.as_np_ndarray() for a in (output, *states))
        return output, states

    def _layers_at_once(self, F: Any, operators: str, differentiable: bool) -> int:
        """Return how many layers an operator gets: all, or one.

        To a gradient's operator MXNet gives zeros as the gradient of the reserve, as large as that
        of all its layers.
        """
        at_once = operators == "native" and not differentiable and not self._drops(F)
        return self._num_layers if at_once else 1

    def _drops(self, F: Any) -> bool:
        """Tell whether there is dropout between layers; in a graph, there may be."""
        return bool(self._dropout) and (F is mx.sym or mx.autograd.is_training())

    def _runner(
        self, operators: str, differentiable: bool, sequence_length: Any
    ) -> Callable[..., Tuple[Any, List[Any]]]:
        """Return a function of F, cell, data, states and weights of layers that runs them.

        Only the native one runs more than one at a time.
        """
        if operators == "native":
            return partial(
                native.layers,
                reserve=differentiable,
                dtype=self._computed_in,
                lengths=sequence_length,
            )
        one: Callable[..., Tuple[Any, List[Any]]]
        if operators == "unrolled":
            one = partial(unrolled.layer, lengths=sequence_length)
        elif sequence_length is None:
            one = fused.layer
        else:
            one = partial(lengths.layer, lengths=sequence_length, dtype=self._computed_in)
        return lambda F, cell, data, states, weights: one(F, cell, data, states, weights[0])

    def _all_layers(
        self,
        F: Any,
        run: Callable[..., Tuple[Any, List[Any]]],
        at_once: int,
        data: Any,
        states: List[Any],
        params: Dict[str, Any],
    ) -> Tuple[Any, List[Any]]:
        """Run the layers, so many at once, with dropout in between; data is [T, N, I]."""
        count = self._num_layers
        parts = [range(k, min(k + at_once, count)) for k in range(0, count, at_once)]
        own: Sequence[Sequence[Any]] = [states]
        if len(parts) > 1:
            own = list(zip(*(_states_of(F, s, count, parts) for s in states)))
        last = []
        for part, of_part in zip(parts, own):
            if part[0] and self._drops(F):
                data = F.Dropout(data, p=self._dropout)
            weights = [
                [[params[name] for name in direction] for direction in self._parameter_names[k]]
                for k in part
            ]
            data, after = run(F, self._cell, data, of_part, weights)
            last.append(after)
        return data, last[0] if len(parts) == 1 else [F.concat(*s, dim=0) for s in zip(*last)]


class LSTM(mx.gluon.rnn.LSTM, _Layer):
    """Long short-term memory: a drop-in `mxnet.gluon.rnn.LSTM`.

    Takes the same arguments, and `backend`: ``'native'`` for the native operator, ``'gluon'`` for
    MXNet's, ``'auto'`` for the first of them that can; by default what the environment variable
    FASTRNN_BACKEND says, or ``'auto'``. The property `backend` tells which of them runs, and why.
    """


class GRU(mx.gluon.rnn.GRU, _Layer):
    """Gated recurrent unit: a drop-in `mxnet.gluon.rnn.GRU`. For `backend` see `LSTM`."""


class RNN(mx.gluon.rnn.RNN, _Layer):
    """Elman network, tanh or ReLU: a drop-in `mxnet.gluon.rnn.RNN`. For `backend` see `LSTM`."""
