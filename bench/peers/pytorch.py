"""PyTorch's ``nn.LSTM``, ``nn.GRU`` and ``nn.RNN``, on the CPU and, through cuDNN, on a GPU."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, List, Optional

import numpy as np

from bench.cases import Case
from bench.data import Data, Results, named
from bench.peers.base import Layer, Peer


def to_host(tensor: Any) -> np.ndarray:
    """A tensor's copy in float32, or in float64 where it is that."""
    tensor = tensor.detach()
    if str(tensor.dtype) != "torch.float64":
        tensor = tensor.float()
    return tensor.cpu().numpy().copy()


class PytorchLayer(Layer):
    """One of the classes of ``torch.nn``; `dtype` may be float64, for a reference."""

    def __init__(self, case: Case, data: Data, device: str, dtype: Optional[str] = None):
        import torch

        self._torch, self._case, self._device = torch, case, device
        self._dtype = getattr(torch, dtype or case.dtype)
        kinds = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
        options = {} if case.cell in kinds else {"nonlinearity": case.cell[len("rnn_") :]}
        self._layer = kinds.get(case.cell, torch.nn.RNN)(
            case.inputs,
            case.hidden,
            num_layers=case.layers,
            bidirectional=case.bidirectional,
            device=device,
            dtype=self._dtype,
            **options,
        ).train(case.train)
        self._weights = list(self._layer.parameters())  # in fastrnn's order
        with torch.no_grad():
            for parameter, array in zip(self._weights, data.weights):
                parameter.copy_(torch.from_numpy(array))
        self._lengths = None if data.lengths is None else torch.from_numpy(data.lengths).long()
        self._xs = [self._put(x).requires_grad_(case.train) for x in data.xs]
        self._d_outputs = [self._put(d) for d in data.d_outputs]
        if case.ragged:
            self.uncapturable = "pack_padded_sequence needs the lengths on the host"
        self._latest: List[Any] = []

    def _put(self, array: np.ndarray) -> Any:
        return self._torch.from_numpy(array).to(self._device, self._dtype)

    def _forward(self, x: Any) -> Any:
        if self._lengths is None:
            return self._layer(x)[0]
        rnn = self._torch.nn.utils.rnn
        packed = rnn.pack_padded_sequence(x, self._lengths)  # the longest come first
        return rnn.pad_packed_sequence(self._layer(packed)[0], total_length=self._case.steps)[0]

    def run(self, number: int) -> None:
        torch = self._torch
        # Read by each call, so the other peers' products are not touched.
        torch.backends.cudnn.allow_tf32 = self._case.tf32
        torch.backends.cuda.matmul.allow_tf32 = self._case.tf32
        x = self._xs[number]
        if self._case.train:
            output = self._forward(x)
            gradients = torch.autograd.grad(output, [x, *self._weights], self._d_outputs[number])
            self._latest = [output, *gradients]
        else:
            with torch.inference_mode():
                self._latest = [self._forward(x)]

    def results(self) -> Results:
        arrays = [to_host(tensor) for tensor in self._latest]
        if not self._case.train:
            return {"output": arrays[0]}
        return named(arrays[0], arrays[1], arrays[2:])


class Pytorch(Peer):
    """PyTorch."""

    name = "PyTorch"

    def mandatory(self, device: str, task: str = "layer") -> bool:
        return device == "cuda"

    def available(self, device: str) -> Optional[str]:
        if not find_spec("torch"):
            return "PyTorch is not installed"
        import torch

        return None if device == "cpu" or torch.cuda.is_available() else "PyTorch sees no GPU"

    def version(self) -> str:
        import torch

        return str(torch.__version__)

    def supports(self, case: Case, device: str) -> Optional[str]:
        return "it has no hybridized form" if case.hybridize else None

    def build(self, case: Case, data: Data, device: str) -> Layer:
        return PytorchLayer(case, data, device)
