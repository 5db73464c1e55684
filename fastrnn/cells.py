"""Gluon's recurrent cells, whose unrolling over a sequence is one recurrent layer."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence, Tuple

from fastrnn import layers
from fastrnn.backend import Backend
from fastrnn.mxnet import import_mxnet

mx: Any = import_mxnet()

_PARAMETERS = ("i2h_weight", "h2h_weight", "i2h_bias", "h2h_bias")


class _Layers:
    """The layers that a cell has made; MXNet warns of blocks in a dictionary."""

    def __init__(self) -> None:
        self.made: Dict[Any, Any] = {}


class _Cell(mx.gluon.rnn.HybridRecurrentCell):
    """What the three cells share. In the MRO it precedes MXNet's cell."""

    def unroll(
        self,
        length: int,
        inputs: Any,
        begin_state: Optional[Sequence[Any]] = None,
        layout: str = "NTC",
        merge_outputs: Optional[bool] = None,
        valid_length: Any = None,
    ) -> Tuple[Any, List[Any]]:
        """Run the cell over a sequence, as a layer does if nothing has to see its steps.

        Parameters
        ----------
        length : int
            T, the number of steps.
        inputs : array, symbol, or list of them
            The sequence, [N, T, I] or [T, N, I] as `layout` says, or its T steps, each [N, I].
        begin_state : list of arrays or symbols, optional
            The states before the first step, each [N, H]; zeros by default.
        layout : {'NTC', 'TNC'}
            Order of the dimensions of a sequence that is one array.
        merge_outputs : bool, optional
            Whether the outputs are one array; by default, with `valid_length`.
        valid_length : array or symbol [N], optional
            The number of steps of each row.

        Returns
        -------
        outputs : array, symbol, or list of them
            As `inputs` are, zero past a row's length.
        states : list
            The states after each row's last step, each [N, H].
        """
        if self._stepwise_reason() is not None:
            return super().unroll(length, inputs, begin_state, layout, merge_outputs, valid_length)
        self.reset()
        sequence, axis, F, rows = mx.gluon.rnn.rnn_cell._format_sequence(
            length, inputs, layout, True
        )
        if F is mx.nd and sequence.shape[axis] != length:
            raise ValueError(
                f"length: expected {sequence.shape[axis]}, as inputs have, got {length}"
            )
        if begin_state is None:
            begin_state = mx.gluon.rnn.rnn_cell._get_begin_state(self, F, None, inputs, rows)
        states = [F.expand_dims(state, axis=0) for state in begin_state]
        arguments = [] if valid_length is None else [valid_length]
        outputs, states = self._layer(layout, bool(arguments))(sequence, states, *arguments)
        states = [F.squeeze(state, axis=0) for state in states]
        if merge_outputs or (merge_outputs is None and arguments):
            return outputs, states
        steps = F.split(outputs, axis=axis, num_outputs=length, squeeze_axis=True)
        return ([steps] if length == 1 and F is mx.nd else list(steps)), states

    @property
    def backend(self) -> Backend:
        """What `unroll` runs on, as for a layer; MXNet's operators if it runs step by step."""
        reason = self._stepwise_reason()
        if reason is not None:
            return Backend("gluon", f"{reason}; plain operators, step by step")
        return self._layer("NTC", False).backend

    def _stepwise_reason(self) -> Optional[str]:
        """Return why `unroll` goes step by step, or None."""
        steps = ("__call__", "forward", "hybrid_forward")
        if any(getattr(type(self), name) is not getattr(self._gluons, name) for name in steps):
            return "a derived class has a step of its own"
        if self._modified:
            return "another cell modifies this one"
        if self._forward_hooks or self._forward_pre_hooks:
            return "hooks see each step"
        if self._mode() is None:
            return "no layer has its activation"
        if mx.util.is_np_array():
            return "Gluon's cells do not take NumPy arrays"
        return None

    def _layer(self, layout: str, has_lengths: bool) -> Any:
        """Return a layer that has the cell's parameters."""
        parameters = {f"l0_{name}": getattr(self, name) for name in _PARAMETERS}
        made = self.__dict__.setdefault("_layers", _Layers()).made
        key = (layout, has_lengths)
        if key not in made or any(made[key]._reg_params[n] is not p for n, p in parameters.items()):
            mode = self._mode()
            kind = {"lstm": layers.LSTM, "gru": layers.GRU}.get(mode, layers.RNN)
            options = {"activation": mode[len("rnn_") :]} if kind is layers.RNN else {}
            layer = kind(
                self._hidden_size, layout=layout, use_sequence_length=has_lengths, **options
            )
            layer._params = self.params
            layer._reg_params.update(parameters)
            vars(layer).update(parameters)
            made[key] = layer
        return made[key]


class LSTMCell(_Cell, mx.gluon.rnn.LSTMCell):
    """A drop-in replacement for `mxnet.gluon.rnn.LSTMCell`, with the same arguments.

    A step is MXNet's. `unroll` is one `fastrnn.LSTM` layer.
    """

    _gluons = mx.gluon.rnn.LSTMCell

    def _mode(self) -> Optional[str]:
        usual = (self._activation, self._recurrent_activation) == ("tanh", "sigmoid")
        return "lstm" if usual else None


class GRUCell(_Cell, mx.gluon.rnn.GRUCell):
    """A drop-in replacement for `mxnet.gluon.rnn.GRUCell`, with the same arguments.

    A step is MXNet's. `unroll` is one `fastrnn.GRU` layer.
    """

    _gluons = mx.gluon.rnn.GRUCell

    def _mode(self) -> Optional[str]:
        return "gru"


class RNNCell(_Cell, mx.gluon.rnn.RNNCell):
    """A drop-in replacement for `mxnet.gluon.rnn.RNNCell`, with the same arguments.

    A step is MXNet's. `unroll` is one `fastrnn.RNN` layer if the activation is tanh or ReLU.
    """

    _gluons = mx.gluon.rnn.RNNCell

    def _mode(self) -> Optional[str]:
        known = self._activation in ("tanh", "relu")
        return f"rnn_{self._activation}" if known else None
