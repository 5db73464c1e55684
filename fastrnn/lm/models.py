"""The two networks: the unrolled one of the tutorial, and the recurrent language model."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

import numpy as np

from fastrnn.layers import GRU, LSTM, RNN
from fastrnn.lm.config import Settings
from fastrnn.lm.errors import InputError
from fastrnn.mxnet import import_mxnet, native

mx = import_mxnet()
nn = mx.gluon.nn
HybridBlock: Any = mx.gluon.HybridBlock
Dense: Any = nn.Dense


class UnrolledRNN(HybridBlock):
    """Predicts the token after a window from all tokens of the window.

    One embedding and three dense layers, written out over the window::

        hidden = dense1(c1)
        hidden = dense2(hidden) + dense1(c2)    # and so on, to the last token
        logits = dense3(hidden)

    Parameters
    ----------
    vocab_size : int
    embed : int
        Size of the embedding.
    hidden : int
        Units of the two inner layers, which end in a relu.
    window : int
        Tokens the network sees.
    sparse_gradient : bool
        As for :class:`LanguageModel`.

    Inputs
    ------
    tokens : shape (N, window)

    Outputs
    -------
    logits : shape (N, vocab_size)
    """

    def __init__(
        self,
        vocab_size: int,
        embed: int = 30,
        hidden: int = 256,
        window: int = 3,
        sparse_gradient: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        Settings(model="unrolled", embed=embed, hidden=hidden, window=window)  # checks them
        self.window = window
        with self.name_scope():
            self.embedding = nn.Embedding(vocab_size, embed, sparse_grad=sparse_gradient)
            self.dense1 = nn.Dense(hidden, activation="relu", in_units=embed, flatten=False)
            if window > 1:
                self.dense2 = nn.Dense(hidden, activation="relu", in_units=hidden)
            self.dense3 = nn.Dense(vocab_size, in_units=hidden)

    def hybrid_forward(self, F: Any, tokens: Any) -> Any:
        fresh = self.dense1(self.embedding(tokens))
        hidden = F.flatten(F.slice_axis(fresh, axis=1, begin=0, end=1))
        for place in range(1, self.window):
            token = F.flatten(F.slice_axis(fresh, axis=1, begin=place, end=place + 1))
            hidden = self.dense2(hidden) + token
        return self.dense3(hidden)


class LanguageModel(HybridBlock):
    """Embedding, dropout, recurrent layers, dropout, decoder.

    Parameters
    ----------
    vocab_size : int
    cell : 'lstm', 'gru', 'rnn_tanh' or 'rnn_relu'
    embed, hidden, layers : int
        Size of the embedding, units of a recurrent layer, number of recurrent layers.
    dropout : float
        Between the recurrent layers and before the decoder.
    tie_weights : bool
        The decoder uses the embedding's weights; `embed` and `hidden` must then be the same.
    embed_init : float
        The embedding's initial weights are uniform from -embed_init to embed_init.
    sparse_gradient : bool
        The gradient of the embedding's weights holds only the rows of tokens that were read. Tied
        weights have a dense one all the same.
    embed_dropout : float
        Between the embedding and the first recurrent layer.
    weight_dropout : float
        Of the recurrent layers' h2h weights, as for :class:`fastrnn.LSTM`.
    dtype : 'float32' or 'float16'
        Of the parameters and states.

    Inputs
    ------
    tokens : shape (T, N)
    states : list of arrays of shape (layers, N, hidden)
        From :meth:`begin_state` or the call before.

    Outputs
    -------
    logits : shape (T, N, vocab_size)
        In float32.
    states : list like the one that went in
    """

    def __init__(
        self,
        vocab_size: int,
        cell: str = "lstm",
        embed: int = 64,
        hidden: int = 256,
        layers: int = 1,
        dropout: float = 0.0,
        tie_weights: bool = False,
        embed_init: float = 0.1,
        sparse_gradient: bool = False,
        embed_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        dtype: str = "float32",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        Settings(  # checks them
            cell=cell,
            embed=embed,
            hidden=hidden,
            layers=layers,
            dropout=dropout,
            tie_weights=tie_weights,
            embed_dropout=embed_dropout,
            weight_dropout=weight_dropout,
            dtype=dtype,
        )
        self._dtype = dtype
        with self.name_scope():
            self.embedding = nn.Embedding(
                vocab_size,
                embed,
                dtype=dtype,
                weight_initializer=mx.init.Uniform(embed_init),
                sparse_grad=sparse_gradient and not tie_weights,
            )
            self.embed_dropout = nn.Dropout(embed_dropout)
            self.rnn = _recurrent_layers(
                *(cell, hidden),
                num_layers=layers,
                dropout=dropout,
                weight_dropout=weight_dropout,
                input_size=embed,
                dtype=dtype,
            )
            self.dropout = nn.Dropout(dropout)
            shared = self.embedding.params if tie_weights else None
            self.decoder = _Decoder(
                vocab_size, flatten=False, in_units=hidden, params=shared, dtype=dtype
            )

    def begin_state(self, batch_size: int = 0, func: Any = None, **kwargs: Any) -> List[Any]:
        """States to start a text with, as the recurrent layer of Gluon gives them.

        Parameters
        ----------
        batch_size : int
        func : callable, optional
            Makes one state; zeros by default.
        **kwargs
            For `func`, such as ``ctx``.
        """
        return self.rnn.begin_state(
            batch_size, func or mx.nd.zeros, **{"dtype": self._dtype, **kwargs}
        )

    def forward(self, tokens: Any, *states: Any) -> Any:
        """Run the model; a hybridized one has its graph for training only, as its layers."""
        if (
            not self._active
            or isinstance(tokens, mx.sym.Symbol)
            or mx.autograd.is_recording()
            # These two see a graph.
            or self._backend
            or self._callback
        ):
            return super().forward(tokens, *states)
        if self._cached_op is None:  # the model can be exported
            self._build_cache(tokens, *states)
        with tokens.ctx:
            return self.hybrid_forward(mx.nd, tokens, *states)

    def hybrid_forward(self, F: Any, tokens: Any, states: List[Any]) -> Tuple[Any, List[Any]]:
        output, states = self.rnn(self.embed_dropout(self.embedding(tokens)), states)
        return self.decoder(self.dropout(output)), states


class _Decoder(Dense):
    """A dense layer that returns float32: float16 has too few digits for a loss."""

    def _alias(self) -> str:
        return "dense"  # in names of parameters

    def hybrid_forward(self, F: Any, x: Any, weight: Any, bias: Any) -> Any:
        if self.weight.dtype == np.float32:
            return super().hybrid_forward(F, x, weight, bias)
        if not native.GPUS:  # MXNet multiplies float16 only on a GPU
            x, weight, bias = (F.cast(array, dtype="float32") for array in (x, weight, bias))
        return F.cast(super().hybrid_forward(F, x, weight, bias), dtype="float32")


def _recurrent_layers(cell: str, hidden: int, **options: Any) -> Any:
    if cell == "lstm":
        return LSTM(hidden, **options)
    if cell == "gru":
        return GRU(hidden, **options)
    return RNN(hidden, activation=cell[len("rnn_") :], **options)


def build_model(settings: Settings, vocab_size: int, sparse_gradient: bool = False) -> Any:
    """The network that `settings` describe, without values."""
    if settings.model == "unrolled":
        return UnrolledRNN(
            vocab_size, settings.embed, settings.hidden, settings.window, sparse_gradient
        )
    return LanguageModel(
        vocab_size,
        cell=settings.cell,
        embed=settings.embed,
        hidden=settings.hidden,
        layers=settings.layers,
        dropout=settings.dropout,
        tie_weights=settings.tie_weights,
        embed_init=settings.init or 0.1,
        sparse_gradient=sparse_gradient,
        embed_dropout=settings.embed_dropout,
        weight_dropout=settings.weight_dropout,
        dtype=settings.dtype,
    )


def parameters_of(model: Any) -> Dict[str, Any]:
    """The model's parameters by their place in it, each once."""
    first_names: Dict[Any, str] = {}
    for name, parameter in model._collect_params_with_prefix().items():
        first_names.setdefault(parameter, name)
    return {name: parameter for parameter, name in first_names.items()}


def parameter_values(model: Any) -> Dict[str, np.ndarray]:
    """Copies of the parameters' values."""
    return {
        name: parameter.data(parameter.list_ctx()[0]).asnumpy()
        for name, parameter in parameters_of(model).items()
    }


def set_parameter_values(model: Any, values: Dict[str, np.ndarray]) -> None:
    """Put `values` into an initialized model; InputError if names or shapes are not the model's."""
    parameters = parameters_of(model)
    if set(parameters) != set(values):
        odd = sorted(set(parameters) ^ set(values))[0]
        raise InputError(f"parameters: {odd!r} is only in one of checkpoint and model")
    for name, parameter in parameters.items():
        if parameter.shape != values[name].shape:
            raise InputError(
                f"parameters: {name} has shape {values[name].shape}, wanted {parameter.shape}"
            )
        parameter.set_data(mx.nd.array(values[name], dtype=parameter.dtype))
