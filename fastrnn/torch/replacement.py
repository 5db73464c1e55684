"""Converts the recurrent layers of a model to fastrnn's, and back."""

from __future__ import annotations

from typing import Any, List, Optional, Tuple

import torch

from fastrnn.reports import Left, Replaced, Report, replace_all
from fastrnn.torch.backend import checked
from fastrnn.torch.layers import GRU, LSTM, RNN

_OURS = {torch.nn.LSTM: LSTM, torch.nn.GRU: GRU, torch.nn.RNN: RNN}
_THEIRS = {ours: theirs for theirs, ours in _OURS.items()}
_MARK = "_accelerated"  # the attribute of layers that `accelerate` replaced


def accelerate(module: Any, backend: str = "auto") -> Report:
    """Replace every `torch.nn.LSTM`, `GRU` and `RNN` in a model by fastrnn's, in place.

    Layers stay the same objects, with the same parameters, hooks and options: an optimizer and
    other references to them stay right.

    Parameters
    ----------
    module : torch.nn.Module
        A model, or a layer.
    backend : {'auto', 'native', 'torch'}
        As for `fastrnn.torch.LSTM`.

    Returns
    -------
    Report
        What was replaced, what was left, and why. Left are classes derived from PyTorch's, which
        may override what fastrnn's do, cells, and layers that the kernels do not cover.

    Raises
    ------
    TypeError
        `module` is not a module.
    ValueError
        `backend` is not one of the above.
    """
    choice = checked(backend)
    return replace_all(_modules(module), _OURS, lambda layer: _replace(layer, choice), _why_left)


def restore(module: Any) -> Report:
    """Undo `accelerate`: the layers that it replaced are PyTorch's again.

    Those that were made as fastrnn's stay, and so do those for which a class was derived since, by
    a parametrization or FSDP: take that away first.

    Parameters
    ----------
    module : torch.nn.Module
        The model, or a layer.

    Returns
    -------
    Report
        What is PyTorch's again, under `replaced`, and what stays fastrnn's, under `left`.

    Raises
    ------
    TypeError
        `module` is not a module.
    """
    report = Report([], [])
    for path, layer in _modules(module):
        kind = type(layer)
        if not isinstance(layer, tuple(_THEIRS)):
            continue
        if kind not in _THEIRS:  # a parametrization or FSDP derives a class for a layer
            report.left.append(Left(path, kind.__name__, "its class is derived from fastrnn's"))
        elif _MARK not in vars(layer):
            report.left.append(Left(path, kind.__name__, "it was made as fastrnn's"))
        else:
            layer.__class__ = _THEIRS[kind]
            for name in (_MARK, "_choice"):
                del vars(layer)[name]
            report.replaced.append(Replaced(path, kind.__name__, "torch: PyTorch's own"))
    return report


def _replace(layer: Any, choice: str) -> Optional[str]:
    """Make PyTorch's layer fastrnn's. If that gains nothing, leave it and tell why."""
    theirs = type(layer)
    layer.__class__ = _OURS[theirs]
    layer._choice = choice
    if layer.backend.name == "native":
        layer._accelerated = True
        return None
    reason: str = layer.backend.reason
    layer.__class__ = theirs
    del layer._choice
    return reason


def _why_left(layer: Any) -> Optional[str]:
    """Return why a recurrent layer is left, or None for any other module."""
    if type(layer) in _THEIRS:
        return "it is fastrnn's already"
    if isinstance(layer, torch.nn.RNNBase):
        return "its class is derived from PyTorch's"
    if isinstance(layer, torch.nn.RNNCellBase):
        return "it computes a single step"
    return None


def _modules(module: Any) -> List[Tuple[str, Any]]:
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module: expected a torch.nn.Module, got {type(module).__name__}")
    return list(module.named_modules())
