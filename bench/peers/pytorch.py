"""PyTorch's layers: its own, on the CPU and, through cuDNN, on a GPU, and fastrnn's."""

from __future__ import annotations

from typing import Any, Optional

from bench.cases import Case
from bench.data import Data
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

    def build_model(self, case: Case, text: Any, device: str) -> Layer:
        from bench.language_model import PytorchModel

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
