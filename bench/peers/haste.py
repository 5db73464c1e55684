"""Haste's layers (PyPI ``haste_pytorch``): LSTM and GRU in float32, in one direction."""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, List, Optional

import numpy as np

from bench.cases import GATES, Case
from bench.data import Data, Results, named
from bench.peers.base import Layer, Peer
from bench.peers.pytorch import to_host

# Where Haste's gates are in fastrnn's order: its LSTM has i, g, f, o and its GRU z, r, n.
ORDER = {"lstm": [0, 2, 1, 3], "gru": [1, 0, 2]}


def reordered(array: np.ndarray, cell: str) -> np.ndarray:
    """Swap two gates of the first axis; applied twice, it changes nothing."""
    gates = array.reshape(GATES[cell], -1, *array.shape[1:])
    return np.ascontiguousarray(gates[ORDER[cell]].reshape(array.shape))


class HasteLayer(Layer):
    """A stack of ``haste_pytorch.LSTM`` or ``GRU``, whose matrices are [I, G*H]."""

    uncapturable = "Haste waits for streams of its own"

    def __init__(self, torch: Any, library: Any, case: Case, data: Data, device: str):
        self._torch, self._case = torch, case
        self._layers = []
        for k in range(0, len(data.weights), 4):
            i2h, h2h, i2h_bias, h2h_bias = (
                reordered(w, case.cell) for w in data.weights[k : k + 4]
            )
            layer = getattr(library, case.cell.upper())(i2h.shape[1], case.hidden).to(device)
            wanted = {"kernel": i2h.T, "recurrent_kernel": h2h.T}
            if case.cell == "lstm":
                wanted["bias"] = i2h_bias + h2h_bias
            else:
                wanted.update(bias=i2h_bias, recurrent_bias=h2h_bias)
            with torch.no_grad():
                for name, array in wanted.items():
                    getattr(layer, name).copy_(torch.from_numpy(np.ascontiguousarray(array)))
            self._layers.append(layer.train(case.train))
        self._weights = [p for layer in self._layers for p in layer.parameters()]
        self._xs = [torch.from_numpy(x).to(device).requires_grad_(case.train) for x in data.xs]
        self._d_outputs = [torch.from_numpy(d).to(device) for d in data.d_outputs]
        self._latest: List[Any] = []

    def _forward(self, x: Any) -> Any:
        for layer in self._layers:
            x = layer(x)[0]
        return x[-self._case.steps :]  # its GRU also returns the state that it began with

    def run(self, number: int) -> None:
        x = self._xs[number]
        if self._case.train:
            output = self._forward(x)
            found = self._torch.autograd.grad(output, [x, *self._weights], self._d_outputs[number])
            self._latest = [output, *found]
        else:
            with self._torch.no_grad():
                self._latest = [self._forward(x)]

    def results(self) -> Results:
        output, *gradients = [to_host(tensor) for tensor in self._latest]
        if not self._case.train:
            return {"output": output}
        cell, flat = self._case.cell, []
        each = len(self._weights) // len(self._layers)
        for k in range(1, len(gradients), each):
            i2h, h2h, *biases = gradients[k : k + each]
            if cell == "lstm":  # it has the sum of both biases
                biases *= 2
            flat += [reordered(a, cell) for a in (i2h.T, h2h.T, *biases)]
        return named(output, gradients[0], flat)


class Haste(Peer):
    """Haste."""

    name = "Haste"

    def available(self, device: str) -> Optional[str]:
        if device != "cuda":
            return "Haste is for GPUs"
        return None if find_spec("haste_pytorch") else "haste_pytorch is not installed"

    def version(self) -> str:
        return version("haste_pytorch")

    def supports(self, case: Case, device: str) -> Optional[str]:
        if case.cell not in ORDER:
            return f"it has no {case.cell}"
        if case.dtype != "float32":
            return f"it has no {case.dtype}"
        if case.tf32:
            return "its products are not in TF32"
        for option in ("bidirectional", "ragged", "hybridize"):
            if getattr(case, option):
                return f"it has no {option} form"
        return None

    def build(self, case: Case, data: Data, device: str) -> Layer:
        import haste_pytorch
        import torch

        return HasteLayer(torch, haste_pytorch, case, data, device)
