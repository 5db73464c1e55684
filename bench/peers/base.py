"""The interface of those who take part."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Dict, Optional

from bench.cases import Case
from bench.data import Data, Results


class MissingPeerError(Exception):
    """Someone without whom a comparison says nothing is not installed."""


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
    """A library, or one of its algorithms."""

    name: str
    group = ""  # of several of which one is enough, where that is mandatory; by default its name
    in_pool = False  # whether its memory on a GPU is in part of fastrnn's pool

    def mandatory(self, device: str, task: str = "layer") -> bool:
        """Whether a comparison on ``cpu`` or ``cuda`` says nothing without it."""
        return False

    @abstractmethod
    def available(self, device: str) -> Optional[str]:
        """Why it cannot take part on ``cpu`` or ``cuda``, or None."""

    @abstractmethod
    def version(self) -> str:
        """Of the library."""

    @abstractmethod
    def supports(self, case: Case, device: str) -> Optional[str]:
        """Why it has no such layer, or None."""

    @abstractmethod
    def build(self, case: Case, data: Data, device: str) -> Layer:
        """Make the layer.

        Raises
        ------
        NotImplementedError
            If it turns out to have no such layer; `Layer.run` may find that out too.
        """
