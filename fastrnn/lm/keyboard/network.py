"""The language model on NumPy arrays: the layers' kernels, without MXNet in between.

A step of a small model takes MXNet twenty times as long as its kernels.
"""

from __future__ import annotations

from typing import Any, List, Optional, Tuple

import numpy as np

from fastrnn import kernels
from fastrnn.lm.config import Settings
from fastrnn.lm.models import LanguageModel


class Network:
    """A trained language model on the CPU.

    Parameters
    ----------
    model : LanguageModel
    settings : Settings
    context : mxnet.Context
    """

    def __init__(self, model: LanguageModel, settings: Settings, context: Any) -> None:
        def values(block: Any, name: str) -> np.ndarray:
            return getattr(block, name).data(context).asnumpy()

        self._settings = settings
        self._embedding = values(model.embedding, "weight")
        self._decoder = np.ascontiguousarray(values(model.decoder, "weight").T)
        self._bias = values(model.decoder, "bias")
        self._weights = [
            values(model.rnn, f"l{layer}_{name}")
            for layer in range(settings.layers)
            for name in ("i2h_weight", "h2h_weight", "i2h_bias", "h2h_bias")
        ]

    @staticmethod
    def of(model: Any, settings: Settings, context: Any) -> Optional[Network]:
        """The network of a model whose layers run on these kernels, or None."""
        if settings.model != "language" or context.device_type != "cpu":
            return None
        return Network(model, settings, context) if model.rnn.backend.name == "native" else None

    def __call__(
        self, numbers: np.ndarray, state: List[np.ndarray]
    ) -> Tuple[np.ndarray, List[np.ndarray]]:
        """Logits [T, N, vocabulary] of tokens [T, N], and the states after them."""
        layers = self._settings.layers
        inputs = self._embedding[numbers]
        result = kernels.forward(self._settings.cell, inputs, self._weights, *state, layers=layers)
        after = [result.h_n] if len(state) == 1 else [result.h_n, result.c_n]
        return self._decoded(result.output) + self._bias, after

    def _decoded(self, output: np.ndarray) -> np.ndarray:
        if output.shape[0] > 1:
            return output @ self._decoder
        # Not BLAS: the threads that it starts spin for longer than this takes.
        return np.einsum("tnh,hv->tnv", output, self._decoder)
