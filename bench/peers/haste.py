"""Haste's layers (PyPI ``haste_pytorch``): LSTM and GRU in float32, in one direction."""

from __future__ import annotations

from typing import Any, List

import numpy as np

from bench.cases import Case
from bench.data import Data
from bench.peers.base import AutogradLayer, Layer, Peer
from fastrnn.cell import GATES

# Where Haste's gates are in fastrnn's order: its LSTM has i, g, f, o and its GRU z, r, n.
ORDER = {"lstm": [0, 2, 1, 3], "gru": [1, 0, 2]}


def reordered(array: np.ndarray, cell: str) -> np.ndarray:
    """Swap two gates of the first axis; applied twice, it changes nothing."""
    gates = array.reshape(GATES[cell], -1, *array.shape[1:])
    return gates[ORDER[cell]].reshape(array.shape)


class HasteLayer(AutogradLayer):
    """A stack of ``haste_pytorch.LSTM`` or ``GRU``, whose matrices are [I, G*H]."""

    uncapturable = "Haste waits for streams of its own"

    def __init__(self, torch: Any, library: Any, case: Case, data: Data, device: str):
        super().__init__(torch, case, data, device)
        self._layers = []
        for k in range(0, len(data.weights), 4):
            of_layer = data.weights[k : k + 4]
            i2h, h2h, i2h_bias, h2h_bias = (reordered(w, case.cell) for w in of_layer)
            layer = getattr(library, case.cell.upper())(i2h.shape[1], case.hidden).to(device)
            wanted = {"kernel": i2h.T, "recurrent_kernel": h2h.T}
            if case.cell == "lstm":
                wanted["bias"] = i2h_bias + h2h_bias
            else:
                wanted.update(bias=i2h_bias, recurrent_bias=h2h_bias)
            with torch.no_grad():
                for name, array in wanted.items():
                    getattr(layer, name).copy_(self.put(array))
            self._layers.append(layer.train(case.train))
        self.weights = [p for layer in self._layers for p in layer.parameters()]

    def forward(self, x: Any) -> Any:
        for layer in self._layers:
            x = layer(x)[0]
        return x[-self.case.steps :]  # its GRU also returns the state that it began with

    def in_order(self, gradients: List[np.ndarray]) -> List[np.ndarray]:
        cell, flat = self.case.cell, []
        each = len(gradients) // len(self._layers)
        for k in range(0, len(gradients), each):
            i2h, h2h, *biases = gradients[k : k + each]
            if cell == "lstm":  # it has the sum of both biases
                biases *= 2
            flat += [reordered(a, cell) for a in (i2h.T, h2h.T, *biases)]
        return flat


class Haste(Peer):
    """Haste."""

    name = "Haste"
    package = "haste_pytorch"
    devices = ("cuda",)
    cells = tuple(ORDER)
    dtypes = ("float32",)
    lacks = ("tf32", "bidirectional", "ragged", "hybridize")

    def build(self, case: Case, data: Data, device: str) -> Layer:
        import haste_pytorch
        import torch

        return HasteLayer(torch, haste_pytorch, case, data, device)
