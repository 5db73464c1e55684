"""What `accelerate` and `restore` did, for Gluon's models and for PyTorch's."""

from __future__ import annotations

from typing import List, NamedTuple


class Replaced(NamedTuple):
    """A layer or cell that was replaced.

    Attributes
    ----------
    path : str
        Where it is in the model, such as ``encoder.0``; empty for the model itself.
    kind : {'LSTM', 'GRU', 'RNN', 'LSTMCell', 'GRUCell', 'RNNCell'}
        Its class.
    backend : str
        What it runs on now, a cell in `unroll`, and the reason.
    """

    path: str
    kind: str
    backend: str


class Left(NamedTuple):
    """A recurrent layer, cell or graph that was left as it is.

    Attributes
    ----------
    path : str
        Where it is in the model; empty for the model itself.
    kind : str
        Its class.
    reason : str
        Why it was left.
    """

    path: str
    kind: str
    reason: str


class Report(NamedTuple):
    """What `accelerate` or `restore` did; as a string, a line for each of these.

    Attributes
    ----------
    replaced : list of Replaced
        The layers and cells that were replaced.
    left : list of Left
        Those that were left as they are.
    """

    replaced: List[Replaced]
    left: List[Left]

    def __str__(self) -> str:
        lines = [f"{r.path or '(model)'}: {r.kind}, replaced; {r.backend}" for r in self.replaced]
        lines += [f"{r.path or '(model)'}: {r.kind}, left; {r.reason}" for r in self.left]
        return "\n".join(lines) or "no recurrent layers"
