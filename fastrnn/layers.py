"""Gluon's recurrent layers, with the same arguments, parameters and numbers."""

from __future__ import annotations

import functools
import inspect
from typing import Any, Dict

from fastrnn.cell import Noise, checked_flag
from fastrnn.mxnet import checks, import_mxnet
from fastrnn.mxnet.dropout import Rates
from fastrnn.mxnet.layer import RecurrentLayer

mx: Any = import_mxnet()


def _constructor(gluon_layer: Any, mode: str) -> Any:
    """Return a constructor with the arguments of one of MXNet's layers, and our own.

    It does not call MXNet's own constructor, which calls super() with its class's global name: it
    would recurse in a program that replaces ``gluon.rnn.LSTM`` by our class.
    """
    signature = inspect.signature(gluon_layer.__init__)

    @functools.wraps(gluon_layer.__init__)
    def construct(
        self: Any,
        *args: Any,
        weight_dropout: Any = 0,
        drop_inputs: Any = 0,
        drop_outputs: Any = 0,
        drop_states: Any = 0,
        zoneout_outputs: Any = 0,
        zoneout_states: Any = 0,
        layer_norm: Any = False,
        backend: Any = None,
        **kwargs: Any,
    ) -> None:
        drops = Rates(
            weights=checks.rate("weight_dropout", weight_dropout),
            inputs=checks.rate("drop_inputs", drop_inputs),
            outputs=checks.rate("drop_outputs", drop_outputs),
        )
        noise = Noise(
            zoneout_outputs=checks.rate("zoneout_outputs", zoneout_outputs),
            zoneout_states=checks.rate("zoneout_states", zoneout_states),
            drop_states=checks.rate("drop_states", drop_states),
        )
        if noise.zoneout_states and mode != "lstm":
            raise ValueError(
                f"zoneout_states: expected 0 for {gluon_layer.__name__}, which has no c, got "
                f"{zoneout_states!r}; zoneout_outputs is the rate for h"
            )
        options: Dict[str, Any] = dict(_ABSENT)
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        options.update(bound.arguments)
        for name, value in options["kwargs"].items():
            if name not in ("use_sequence_length", "prefix", "params"):
                raise TypeError(f"{name}: not an argument of {gluon_layer.__name__}, got {value!r}")
        options.update(options.pop("kwargs"))
        del options["self"]
        for name in ("min", "max", "nan"):
            options[f"lstm_state_clip_{name}"] = options.pop(f"state_clip_{name}")
        activation = options.pop("activation", None)
        if mode == "rnn":
            checks.activation(activation)
        full_mode = f"rnn_{activation}" if mode == "rnn" else mode
        norm = checked_flag("layer_norm", layer_norm)
        if norm and mode == "rnn":
            raise TypeError("layer_norm: expected an LSTM or a GRU, got True for an RNN")
        RecurrentLayer.__init__(self, full_mode, backend, drops, noise, options, norm)

    return construct


# The arguments that only the LSTM has, with the values that other layers use.
_ABSENT = {
    "projection_size": None,
    "h2r_weight_initializer": None,
    "state_clip_min": None,
    "state_clip_max": None,
    "state_clip_nan": False,
}


class LSTM(mx.gluon.rnn.LSTM, RecurrentLayer):
    """Long short-term memory: a drop-in replacement for `mxnet.gluon.rnn.LSTM`.

    It takes the same arguments, and those below.

    Parameters
    ----------
    weight_dropout : float, default 0
        Rate of DropConnect (Merity et al., arXiv:1708.02182): a training call draws which h2h
        weights of each layer and direction are zero in all of its steps.
    drop_inputs : float, default 0
        Rate of variational dropout (Gal and Ghahramani, arXiv:1512.05287): a training call draws,
        for each row of the batch, which features of each layer's input are zero in all steps.
    drop_outputs : float, default 0
        The same for each layer's output, both directions together. The states keep all units.
    drop_states : float, default 0
        The same for the h that each layer and direction reads in its steps. The h that is output
        and returned keeps all units.
    zoneout_outputs, zoneout_states : float, default 0
        Rates of zoneout (Krueger et al., arXiv:1606.01305) of h and of c: a training call draws, in
        each step, which units keep their value from the step before. Outside training, a state is
        the mean of the one before and the new one, weighted by the rate and the rest.
    layer_norm : bool, default False
        Whether the products with the weights, and the cell state before it becomes the output, are
        layer-normalised (Ba et al., arXiv:1607.06450, supplementary material); not together with
        projection, clipping, zoneout or `drop_states`. Each layer ``k`` has the parameters
        ``l{k}_i2h_gamma`` and ``l{k}_h2h_gamma`` [4*H], ``l{k}_c_gamma`` and ``l{k}_c_beta`` [H],
        which are ones and zeros at first, and ``r{k}_...`` for a second direction; the biases shift
        the normalised products.
    backend : {'auto', 'native', 'gluon'}, optional
        ``'native'`` for the native operator, ``'gluon'`` for MXNet's operators, ``'auto'`` for the
        native one wherever it covers the layer and, on a GPU, ``fastrnn check`` found it right and
        not slower. The default is the environment variable FASTRNN_BACKEND, or else ``'auto'``. The
        property `backend` tells which one runs, and why.

    Raises
    ------
    ValueError
        A rate outside 0 to 1, a size that is too small, or arguments that exclude each other; the
        message names the argument.
    TypeError
        An argument of the wrong type, or one that the layer does not have.

    Notes
    -----
    All rates are from 0 to 1. What dropout leaves is scaled by 1/(1 - rate). A layer with
    ``num_layers`` above 1 is the same as so many layers with these rates, one after the other, with
    ``dropout`` in between. The rates do not change the parameters, and only those of zoneout change
    results outside training.
    """

    __init__ = _constructor(mx.gluon.rnn.LSTM, "lstm")


class GRU(mx.gluon.rnn.GRU, RecurrentLayer):
    """Gated recurrent unit: a drop-in replacement for `mxnet.gluon.rnn.GRU`.

    It takes the same arguments, and `weight_dropout`, `drop_inputs`, `drop_outputs`, `drop_states`,
    `zoneout_outputs`, `layer_norm` and `backend`, as for `LSTM`. Layer-normalised, it has the
    parameters ``l{k}_i2h_gamma`` and ``l{k}_h2h_gamma`` [3*H]; the new gate is normalised by
    itself, the other two together.
    """

    __init__ = _constructor(mx.gluon.rnn.GRU, "gru")


class RNN(mx.gluon.rnn.RNN, RecurrentLayer):
    """Elman network, tanh or ReLU: a drop-in replacement for `mxnet.gluon.rnn.RNN`.

    It takes the same arguments, and `weight_dropout`, `drop_inputs`, `drop_outputs`, `drop_states`,
    `zoneout_outputs` and `backend`, as for `LSTM`.
    """

    __init__ = _constructor(mx.gluon.rnn.RNN, "rnn")
