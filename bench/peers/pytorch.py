"""PyTorch's layers: its own, on the CPU and, through cuDNN, on a GPU, and fastrnn's."""

from __future__ import annotations

from typing import Any, Optional

from bench.cases import Case
from bench.data import Data
from bench.language_model import CLIP, RATE, Model, TextData
from bench.peers.base import AutogradLayer, Layer, Peer


def module_of(case: Case, library: Any) -> Any:
    """The layer of a case, of ``torch.nn`` or ``fastrnn.torch``."""
    kinds = {"lstm": library.LSTM, "gru": library.GRU}
    options = {} if case.cell in kinds else {"nonlinearity": case.cell[len("rnn_") :]}
    return kinds.get(case.cell, library.RNN)(
        case.inputs, case.hidden, case.layers, bidirectional=case.bidirectional, **options
    )


def use_tf32(torch: Any, case: Case) -> None:
    """Choose the products' arithmetic. PyTorch reads this in each call."""
    torch.backends.cudnn.allow_tf32 = case.tf32
    torch.backends.cuda.matmul.allow_tf32 = case.tf32


class PytorchLayer(AutogradLayer):
    """A recurrent layer of `library`, by default ``torch.nn``; for a reference, of float64."""

    def __init__(
        self, case: Case, data: Data, device: str, dtype: str = "", library: Optional[Any] = None
    ):
        import torch

        super().__init__(torch, case, data, device, dtype)
        self._layer = module_of(case, library or torch.nn).to(device, self.dtype).train(case.train)
        self.weights = list(self._layer.parameters())  # in fastrnn's order
        with torch.no_grad():
            for parameter, array in zip(self.weights, data.weights):
                parameter.copy_(torch.from_numpy(array))
        self._lengths = None if data.lengths is None else torch.from_numpy(data.lengths).long()
        if case.ragged:
            self.uncapturable = "pack_padded_sequence needs the lengths on the host"

    def forward(self, x: Any) -> Any:
        if self._lengths is None:
            return self._layer(x)[0]
        rnn = self.torch.nn.utils.rnn
        packed = rnn.pack_padded_sequence(x, self._lengths)  # the longest come first
        return rnn.pad_packed_sequence(self._layer(packed)[0], total_length=self.case.steps)[0]

    def run(self, number: int) -> None:
        use_tf32(self.torch, self.case)
        super().run(number)


class PytorchModel(Model):
    """The tutorial's language model of PyTorch's modules, around a layer like PyTorch's."""

    def __init__(self, case: Case, text: TextData, device: str, layer: Any):
        import torch

        super().__init__(case)
        self._torch = torch
        nn = torch.nn
        self._embedding = nn.Embedding(case.vocabulary, case.inputs).to(device)
        self._layer = layer.to(device)
        self._decoder = nn.Linear(case.hidden, case.vocabulary).to(device)
        modules = (self._embedding, self._layer, self._decoder)
        self._parameters = [p for module in modules for p in module.parameters()]
        arrays = [text.embedding, *text.weights, text.decoder, text.bias]
        with torch.no_grad():
            for parameter, array in zip(self._parameters, arrays):
                parameter.copy_(torch.from_numpy(array))
        optimizers = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
        self._optimizer = optimizers[case.optimizer](self._parameters, lr=RATE)
        self._characters = torch.from_numpy(text.characters).long().to(device)
        self._targets = torch.from_numpy(text.targets).long().to(device)
        self._states: Any = None

    def _logits(self) -> Any:
        output, states = self._layer(self._embedding(self._characters), self._states)
        states = states if isinstance(states, tuple) else (states,)
        states = tuple(state.detach() for state in states)
        self._states = states if len(states) > 1 else states[0]
        return self._decoder(output)

    def run(self, number: int) -> None:
        """Update once, or read one character and look at the logits."""
        torch = self._torch
        use_tf32(torch, self._case)
        if not self._case.train:
            with torch.no_grad():
                self._latest = self._logits()[-1].cpu().numpy()
            return
        loss = torch.nn.functional.cross_entropy(
            self._logits().flatten(0, 1), self._targets.flatten(), reduction="sum"
        )
        self._optimizer.zero_grad()
        loss.backward()
        for parameter in self._parameters:  # the loss is a sum, of which Adam gets the mean
            parameter.grad /= self._case.batch
        torch.nn.utils.clip_grad_norm_(self._parameters, CLIP / self._case.batch)
        self._optimizer.step()
        self._latest = loss.detach().cpu().numpy().reshape(1)


class Pytorch(Peer):
    """PyTorch."""

    name = "PyTorch"
    package = "torch"
    lacks = ("hybridize",)

    def mandatory(self, device: str, task: str = "layer") -> bool:
        return device == "cuda"

    def available(self, device: str) -> Optional[str]:
        reason = super().available(device)
        if reason is None and device == "cuda":
            import torch

            return None if torch.cuda.is_available() else "PyTorch sees no GPU"
        return reason

    def version(self) -> str:
        import torch

        return str(torch.__version__)  # which also says for what CUDA it is

    def library(self) -> Any:
        """The module that has the layers."""
        import torch

        return torch.nn

    def build(self, case: Case, data: Data, device: str) -> Layer:
        return PytorchLayer(case, data, device, library=self.library())

    def build_model(self, case: Case, text: TextData, device: str) -> Layer:
        return PytorchModel(case, text, device, module_of(case, self.library()))


class FastrnnTorch(Pytorch):
    """fastrnn's layers for PyTorch, which are called as PyTorch's are."""

    name = "fastrnn.torch"
    in_pool = True

    def mandatory(self, device: str, task: str = "layer") -> bool:
        return False

    def available(self, device: str) -> Optional[str]:
        from fastrnn._native import find

        return super().available(device) or find()[1] or None

    def library(self) -> Any:
        import fastrnn.torch

        return fastrnn.torch
