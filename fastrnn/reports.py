"""What `accelerate` and `restore` did, for Gluon's models and for PyTorch's."""

from __future__ import annotations

from typing import Any, Callable, Container, Iterable, List, NamedTuple, Optional, Tuple


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


def replace_all(
    found: Iterable[Tuple[str, Any]],
    kinds: Container[Any],
    replace: Callable[[Any], Optional[str]],
    why_left: Callable[[Any], Optional[str]],
) -> Report:
    """Replace the blocks of some kinds among those that were found, and report on all.

    Parameters
    ----------
    found : iterable of (str, block)
        The blocks of a model, with their paths.
    kinds : container of classes
        The classes that are replaced.
    replace, why_left : callable
        Replaces a block of these classes, or returns why it cannot be; returns why another one is
        left, or None if it has nothing to do with recurrent layers.
    """
    report = Report([], [])
    for path, block in found:
        kind = type(block)
        reason = replace(block) if kind in kinds else why_left(block)
        if reason is not None:
            report.left.append(Left(path, kind.__name__, reason))
        elif kind in kinds:
            report.replaced.append(Replaced(path, kind.__name__, str(block.backend)))
    return report
