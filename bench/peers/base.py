"""The interface of those who take part, and what the layers on PyTorch's tensors share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from bench.cases import CELLS, ITEM_BYTES, Case
from bench.data import Data, Results, named


class Layer(ABC):
    """A case's layer with its weights and inputs in place."""

    # Why its calls are never captured into a CUDA graph: a capture that fails harms the process.
    uncapturable: Optional[str] = None

    @abstractmethod
    def run(self, number: int) -> None:
        """Work on an input set: forward, and for training backward to input and weights.

        On the CPU the work is done on return; on a GPU it is on PyTorch's current stream.
        """

    @abstractmethod
    def results(self) -> Results:
        """Copies of what the latest `run` gave, on the host, as `data.expected` names them."""

    def facts(self) -> Dict[str, str]:
        """What the row shall say of the layer besides its times."""
        return {}

    def close(self) -> None:  # noqa: B027 - most hold memory alone
        """Give back what a library holds besides memory."""


class Peer(ABC):
    """A library, or one of its algorithms. The attributes say which layers it has."""

    name: str
    package: str  # of Python
    group = ""  # of several of which one is enough, where that is mandatory; by default its name
    devices: Tuple[str, ...] = ("cpu", "cuda")
    cells: Tuple[str, ...] = CELLS
    dtypes: Tuple[str, ...] = tuple(ITEM_BYTES)
    lacks: Tuple[str, ...] = ()  # options of a case that it does not have
    in_pool = False  # whether its memory on a GPU is in part of fastrnn's pool

    def mandatory(self, device: str, task: str = "layer") -> bool:
        """Whether a comparison on ``cpu`` or ``cuda`` says nothing without it."""
        return False

    def available(self, device: str) -> Optional[str]:
        """Why it cannot take part on ``cpu`` or ``cuda``, or None."""
        if device not in self.devices:
            return f"{self.name} does not run on {device}"
        return None if find_spec(self.package) else f"{self.package} is not installed"

    def version(self) -> str:
        """Of the library."""
        return version(self.package)

    def supports(self, case: Case, device: str) -> Optional[str]:
        """Why it has no such layer, or None."""
        for value, known in ((case.cell, self.cells), (case.dtype, self.dtypes)):
            if value not in known:
                return f"it has no {value}"
        for option in self.lacks:
            if getattr(case, option):
                return f"it has no {option} form"
        return None

    def unproven(self, case: Case, device: str) -> Optional[str]:
        """Why its results cannot be trusted here, however they compare once, or None."""
        return None

    @abstractmethod
    def build(self, case: Case, data: Data, device: str) -> Layer:
        """Make the layer.

        Raises
        ------
        NotImplementedError
            If it turns out to have no such layer; `Layer.run` may find that out too.
        """

    def build_model(self, case: Case, text: Any, device: str) -> Layer:
        """Make a language model around the layer, with the weights of `language_model.draw`.

        Raises
        ------
        NotImplementedError
            If there is none.
        """
        raise NotImplementedError("its layer is in no language model here")


def to_host(tensor: Any) -> np.ndarray:
    """A tensor's copy in float32, or in float64 where it is that."""
    tensor = tensor.detach()
    if str(tensor.dtype) != "torch.float64":
        tensor = tensor.float()
    return tensor.cpu().numpy().copy()


class TensorLayer(Layer):
    """A layer on PyTorch's tensors.

    Parameters
    ----------
    torch
        Has the tensors and the stream; tests bring a stand-in.
    dtype
        By default the case's.
    """

    def __init__(self, torch: Any, case: Case, data: Data, device: str, dtype: str = ""):
        self.torch, self.case, self.device = torch, case, device
        self.dtype = getattr(torch, dtype or case.dtype)
        self.xs = [self.put(x) for x in data.xs]
        self.d_outputs = [self.put(d) for d in data.d_outputs]

    def put(self, array: np.ndarray) -> Any:
        """A tensor of the layer's type on its device."""
        return self.torch.from_numpy(np.ascontiguousarray(array)).to(self.device, self.dtype)


class AutogradLayer(TensorLayer):
    """A layer that PyTorch differentiates."""

    def __init__(self, torch: Any, case: Case, data: Data, device: str, dtype: str = ""):
        super().__init__(torch, case, data, device, dtype)
        for x in self.xs:
            x.requires_grad_(case.train)
        self.weights: List[Any] = []  # those that learn
        self._latest: List[Any] = []

    @abstractmethod
    def forward(self, x: Any) -> Any:
        """The output [T, N, D*H]."""

    def run(self, number: int) -> None:
        torch, x = self.torch, self.xs[number]
        if self.case.train:
            output = self.forward(x)
            gradients = torch.autograd.grad(output, [x, *self.weights], self.d_outputs[number])
            self._latest = [output, *gradients]
        else:
            with torch.inference_mode():
                self._latest = [self.forward(x)]

    def results(self) -> Results:
        output, *gradients = [to_host(tensor) for tensor in self._latest]
        if not self.case.train:
            return {"output": output}
        return named(output, gradients[0], self.in_order(gradients[1:]))

    def in_order(self, gradients: List[np.ndarray]) -> List[np.ndarray]:
        """The gradients of `weights` in the order of `data.Data.weights`."""
        return gradients
