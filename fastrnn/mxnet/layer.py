"""What the recurrent layers share: Gluon's layer, run on the operators that were chosen."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Dict, FrozenSet, Iterable, List, Optional, Sequence, Tuple

import numpy as np

from fastrnn.backend import Backend, Chooser, Request, requested
from fastrnn.cell import Cell, Noise
from fastrnn.mxnet import checks, import_mxnet, mixed_precision, nodes, stack
from fastrnn.mxnet.dropout import Rates
from fastrnn.mxnet.gradients import added_to, has_gradient, only_upper_layers_learn
from fastrnn.mxnet.stack import OwnStates, Recorder, Stack
from fastrnn.mxnet.threads import Kept, first_call

mx: Any = import_mxnet()


def _check_static_shape(static_shape: bool, operators: str, backend: Backend) -> None:
    """Refuse what MXNet's loop gets wrong."""
    if static_shape and operators == stack.UNROLLED:
        raise ValueError(
            "static_shape: expected False, since MXNet's foreach gives wrong results with it; "
            f"got True for a layer on {backend}"
        )


class RecurrentLayer(mx.gluon.rnn.rnn_layer._RNNLayer):
    """The base of our layers. In an MRO it is between MXNet's layer and that layer's base."""

    def __init__(
        self,
        mode: str,
        backend: Any,
        drops: Rates,
        noise: Noise,
        options: Dict[str, Any],
        layer_norm: bool = False,
    ) -> None:
        """Make a layer from the named arguments of MXNet's base class, and what it lacks."""
        checks.sizes(options)
        checks.layout(options["layout"])
        options["dropout"] = checks.rate("dropout", options["dropout"])
        if options["dtype"] is None:
            options["dtype"] = "float32"  # as for Parameter
        request = requested(backend)
        clip = checks.clipping(options["lstm_state_clip_min"], options["lstm_state_clip_max"])
        if layer_norm:
            checks.layer_norm(options["projection_size"], clip, noise)
        mx.gluon.rnn.rnn_layer._RNNLayer.__init__(self, mode=mode, **options)
        if layer_norm:
            self._register_norms()
        self._set_up(request, clip, drops, noise, layer_norm)

    def _register_norms(self) -> None:
        """Add the parameters of a layer normalisation."""
        sizes = {"i2h_gamma": self._gates, "h2h_gamma": self._gates}
        if self._mode == "lstm":
            sizes.update(c_gamma=1, c_beta=1)
        for layer in range(self._num_layers):
            for d in "lr"[: self._dir]:
                for name, gates in sizes.items():
                    init = "zeros" if name == "c_beta" else "ones"
                    shape = (gates * self._hidden_size,)
                    self._register_param(f"{d}{layer}_{name}", shape, init, self._dtype)

    def _set_up(
        self,
        request: Request,
        clip: Tuple[Optional[float], Optional[float]],
        drops: Rates,
        noise: Noise,
        layer_norm: bool = False,
    ) -> None:
        """Add to what MXNet's constructor has made. Raises if the backend cannot run the layer."""
        self._lstm_state_clip_min, self._lstm_state_clip_max = clip
        self._rates = drops._replace(between=checks.rate("dropout", self._dropout))
        self._cell = Cell(
            self._mode,
            self._hidden_size,
            self._projection_size or 0,
            *clip,
            self._lstm_state_clip_nan,
            noise,
            layer_norm,
        )
        self._chooser = Chooser(
            request=request,
            cell=self._cell,
            layers=self._num_layers,
            directions=self._dir,
            rates=self._rates,
            lengths=self._use_sequence_length,
        )
        self._kept = Kept()
        self._graph = object()  # stands for the traced graph, which it does not keep alive
        self._decide(self.l0_i2h_weight.dtype)

    def __repr__(self) -> str:
        own = "".join(f", {name}={value}" for name, value in self._own_arguments() if value)
        return f"{super().__repr__()[:-1]}{own})"

    def _own_arguments(self) -> Iterable[Tuple[str, Any]]:
        """The arguments that Gluon's layer lacks, with their values; without effect if false."""
        yield "weight_dropout", self._rates.weights
        yield "drop_inputs", self._rates.inputs
        yield "drop_outputs", self._rates.outputs
        yield from self._cell.noise._asdict().items()
        yield "layer_norm", self._cell.layer_norm

    def _unfuse(self) -> Any:
        """Return MXNet's cells, which share the parameters of the layer.

        Raises ValueError if the layer has arguments that Gluon's lacks: these cells ignore them.
        """
        for name, value in self._own_arguments():
            if value:
                raise ValueError(f"{name}: expected none, as MXNet's cells ignore it, got {value}")
        return super()._unfuse()

    @property
    def backend(self) -> Backend:
        """The operators that the layer runs on (`name`: native or gluon) and the `reason`."""
        self._follow_parameters()
        return self._runs_on

    def cast(self, dtype: Any) -> None:
        """Convert the parameters to `dtype`, and compute in it from now on.

        Raises
        ------
        TypeError
            `dtype` is not float16, float32 or float64.
        ValueError
            The requested ``backend`` or ``static_shape`` does not support `dtype`.
        """
        self._decide(dtype)
        super().cast(dtype)

    def __getstate__(self) -> Dict[str, Any]:
        # MXNet can copy neither a traced graph nor what runs it: a copy traces its own.
        without = {"_cached_graph": (), "_cached_op": None, "_graph": object(), "_kept": Kept()}
        return {**self.__dict__, **without}

    def __setstate__(self, state: Dict[str, Any]) -> None:
        # A copy may be unpickled in a process with another library.
        self.__dict__.update(state)
        self._decide(self._stack.dtype)

    def _follow_parameters(self) -> None:
        """Choose the operators again if the parameters' type was changed."""
        dtype = self.l0_i2h_weight.dtype
        if dtype != self._stack.dtype:
            self._decide(dtype)
            self._clear_cached_op()

    def _decide(self, dtype: Any) -> None:
        """Choose the operators for parameters of a type. An error leaves the layer unchanged."""
        choice = self._chooser.choose(dtype)
        if self._active:
            static_shape = dict(self._flags)["static_shape"]
            _check_static_shape(static_shape, choice.operators, choice.backend)
        self._stack = Stack(
            cell=self._cell,
            layers=self._num_layers,
            directions=self._dir,
            rates=self._rates,
            layout=self._layout,
            dtype=np.dtype(dtype),
            computed_in=choice.computed_in,
            operators=choice.operators,
        )
        self._runs_on = choice.backend

    def _collect_params_with_prefix(self, prefix: str = "") -> Dict[str, Any]:
        """Return the parameters by the names that MXNet's layers use in files."""
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
            `static_shape` for a layer on unrolled operators: MXNet's loop then reads arrays before
            they are computed.
        """
        if active:
            _check_static_shape(static_shape, self._stack.operators, self.backend)
        super().hybridize(active, backend, clear, static_alloc, static_shape, *args, **kwargs)
        self._kept.forget_recorders()

    def __call__(self, inputs: Any, states: Any = None, sequence_length: Any = None) -> Any:
        """Run the layer.

        Parameters
        ----------
        inputs
            [T, N, I], or [N, T, I] with the layout NTC.
        states
            [L*D, N, P], for the LSTM a list of that and [L*D, N, H]; zeros by default. P is H
            unless the layer is projected.
        sequence_length
            [N], each row's number of steps, for a layer made with ``use_sequence_length=True``. The
            native operator on a GPU does not wait for the values, and clamps them to 0 to T.

        Returns
        -------
        output or (output, states)
            [T, N, D*P] or [N, T, D*P], zero past a row's length; and, if states were given, the
            states after each row's last step.

        Raises
        ------
        TypeError, ValueError
            An argument of the wrong kind, type, shape or device; lengths outside of 0 to T.
        """
        eager = isinstance(inputs, mx.nd.NDArray)
        if not eager and not isinstance(inputs, mx.sym.Symbol):
            raise TypeError(f"inputs: expected an MXNet array, got {type(inputs).__name__}")
        if self._use_sequence_length != (sequence_length is not None):
            raise ValueError(
                "sequence_length: expected with use_sequence_length=True and only then, got "
                f"{sequence_length!r} with use_sequence_length={self._use_sequence_length}"
            )
        self._follow_parameters()
        if isinstance(states, (mx.nd.NDArray, mx.sym.Symbol)):
            states = [states]
        if eager:
            states = self._checked_states(inputs, states, sequence_length)
            if 0 in inputs.shape:
                return self._empty(inputs, states)
        elif states is None:
            unknown = -1 if mx.util.is_np_shape() else 0
            zeros = functools.partial(nodes.constant, mx.sym, 0.0)
            own = self.begin_state(unknown, func=zeros, dtype=self._stack.dtype.name)
            states = OwnStates(own, self._begins_with_zeros())
        lengths = (sequence_length,) if self._use_sequence_length else ()
        if eager and not self._is_prepared():
            with first_call():
                return mx.gluon.HybridBlock.__call__(self, inputs, states, *lengths)
        return mx.gluon.HybridBlock.__call__(self, inputs, states, *lengths)

    def _is_prepared(self) -> bool:
        """Whether a call with arrays neither initializes parameters nor traces the layer."""
        return (self._cached_op is not None or not self._active) and all(
            p._data is not None and (p._grad is not None or p.grad_req == "null")
            for p in self._reg_params.values()
        )

    def _checked_states(self, inputs: Any, states: Any, sequence_length: Any) -> List[Any]:
        """Check the arguments of a call with arrays; the states default to zeros."""
        kind = self._stack.dtype.type
        rows = checks.inputs(inputs, self._layout, self.l0_i2h_weight.shape[1], kind)
        if sequence_length is not None:
            steps = inputs.shape[self._layout.index("T")]
            checks.sequence_length(sequence_length, inputs, rows)
            # With others, MXNet's operators would read out of bounds.
            if self._stack.operators != stack.NATIVE or inputs.ctx.device_type != "gpu":
                checks.lengths(sequence_length, steps)
        if states is None:
            return self._own_states(inputs, rows)
        checks.states(states, inputs, kind, [info["shape"] for info in self.state_info(rows)])
        return list(states)

    def _begins_with_zeros(self) -> bool:
        """Whether `begin_state` is MXNet's; a derived class may start from other states."""
        own = mx.gluon.rnn.rnn_layer._RNNLayer.begin_state
        return getattr(self.begin_state, "__func__", None) is own

    def _own_states(self, inputs: Any, rows: int) -> OwnStates:
        """Return the initial states of a call with arrays; zeros are made once for calls alike."""
        zeros = self._begins_with_zeros()
        key = (rows, inputs.ctx, self._stack.dtype, mx.util.is_np_array())
        if not zeros or self._kept.zeros[0] != key:
            states = self.begin_state(rows, ctx=inputs.ctx, dtype=inputs.dtype)
            if not zeros:
                return OwnStates(states, False)
            self._kept.zeros = (key, states)
        return OwnStates(self._kept.zeros[1], True)

    def _empty(self, inputs: Any, states: Any) -> Any:
        """Return the results for an empty batch, which MXNet's operators refuse."""
        width = self._dir * (self._projection_size or self._hidden_size)
        output = inputs.reshape((*inputs.shape[:2], width))
        if mx.autograd.is_recording():  # the parameters' gradients are zeros
            self.infer_shape(inputs)
            for parameter in self._reg_params.values():
                parameter._finish_deferred_init()
                output = output + 0 * parameter.data(inputs.ctx).sum()
        return output if isinstance(states, OwnStates) else (output, states)

    def forward(self, inputs: Any, states: Any, *args: Any) -> Any:
        """Run the layer with all states; return them only if the caller gave them."""
        # Decided in each call: a graph always returns both, and threads may share the layer.
        run = self._directly if self._is_better_without_graph(inputs) else super().forward
        outcome = run(inputs, states, *args)
        return outcome[0] if isinstance(states, OwnStates) else outcome

    def _is_better_without_graph(self, inputs: Any) -> bool:
        """Whether a hybridized layer runs as one that is not: its graph copies the weights."""
        return (
            self._active
            and self._stack.operators == stack.NATIVE
            and isinstance(inputs, mx.nd.NDArray)
            # These two see a graph.
            and not self._backend
            and not self._callback
        )

    def _directly(self, inputs: Any, states: Any, *args: Any) -> Any:
        """Run a hybridized layer without its graph."""
        if self._cached_op is None:  # initializes the parameters, and the layer can be exported
            self._build_cache(inputs, states, *args)
        device = inputs.ctx
        params = {name: parameter.data(device) for name, parameter in self._reg_params.items()}
        with device:
            return self.hybrid_forward(mx.nd, inputs, states, *args, **params)

    def _call_cached_op(self, *args: Any) -> Any:
        """Run the graph."""
        if mx.autograd.is_recording():
            args = tuple(a.of_one_call() if isinstance(a, OwnStates) else a for a in args)
        graph = self._graph
        if self._kept.graph is graph:
            return super()._call_cached_op(*args)
        with first_call():
            outcome = super()._call_cached_op(*args)
            self._kept.graph = graph
        return outcome

    def _clear_cached_op(self) -> None:
        """Drop the graph."""
        self._graph = object()
        super()._clear_cached_op()

    def hybrid_forward(
        self, F: Any, inputs: Any, states: Any, sequence_length: Any = None, **params: Any
    ) -> Tuple[Any, List[Any]]:
        """Return output and states, on arrays or on symbols."""
        return self._forward_kernel(F, inputs, states, sequence_length, **params)

    def _forward_kernel(
        self, F: Any, inputs: Any, states: List[Any], sequence_length: Any, **params: Any
    ) -> Tuple[Any, List[Any]]:
        """Call the operators."""
        of_call = self._stack_of_graph() if F is mx.sym else self._stack
        zeros = isinstance(states, OwnStates) and states.zeros
        run = functools.partial(
            of_call.run, F, inputs, states, sequence_length, params, zero_states=zeros
        )
        if F is mx.sym or not mx.autograd.is_recording():
            return run()
        for name, parameter in self._reg_params.items():
            if parameter.grad_req == "null":
                # Autograd would attach a node to the array, which threads may share.
                params[name] = params[name].detach()
        adding = self._adding(inputs, states, params)
        if not adding and of_call.is_one_operator(inputs):
            return run()
        if isinstance(states, OwnStates) and zeros:
            needed = of_call.operators != stack.NATIVE
            states = states.of_one_call() if needed else OwnStates([], True)
        of_call = self._stack_of_graph()
        flags = tuple(self._flags) if self._active else ()
        key = (of_call, adding, len(states), flags, mx.util.is_np_array(), mixed_precision())
        has_lengths = sequence_length is not None
        recorder = self._kept.recorder(
            self._graph, key, lambda: Recorder(of_call, len(states), has_lengths, adding, flags)
        )
        params = stack.on_one_device(self._reg_params, params)
        return recorder(inputs, states, sequence_length, params)

    def _stack_of_graph(self) -> Stack:
        """Return the stack as a graph runs it."""
        if only_upper_layers_learn(self._stack.parameter_names, self._reg_params):
            return dataclasses.replace(self._stack, apart=True)
        return self._stack

    def _adding(self, inputs: Any, states: Sequence[Any], params: Dict[str, Any]) -> FrozenSet[str]:
        """Return the names of the arrays to whose gradients `backward` may have to add.

        It adds to gradients that were attached, never to one that it passes on.
        """
        arrays = {"inputs": inputs, **{f"state{k}": state for k, state in enumerate(states)}}
        if isinstance(states, OwnStates) and states.zeros:
            arrays = {"inputs": inputs}
        adding = [name for name, array in arrays.items() if has_gradient(array)]
        adding += added_to(self._reg_params, params, next(iter(params.values())).ctx)
        return frozenset(adding)
