"""The interface of those who take part."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Optional

from bench.cases import Case
from bench.data import Data, Results


class MissingPeerError(Exception):
    """Someone without whom a comparison says nothing is not installed."""


class Layer(ABC):
    """A case's layer with its weights and inputs in place."""

    @abstractmethod
    def run(self, number: int) -> None:
        """Work on an input set: forward, and for training backward to input and weights.

        On the CPU the work is done on return; on a GPU it is on PyTorch's current stream.
        """

    @abstractmethod
    def results(self) -> Results:
        """Copies of what the latest `run` gave, on the host, as `data.expected` names them."""


class Peer(ABC):
    """A library, or one of its algorithms."""

    name: str
    mandatory = False  # on a GPU

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
        """Make the layer."""
