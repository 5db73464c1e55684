"""Chooses the operators that a recurrent layer runs on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional

import numpy as np

from fastrnn.cell import Cell
from fastrnn.check import verdict
from fastrnn.mxnet import checks, native, rnn_operator, stack
from fastrnn.mxnet.dropout import Rates

_BACKENDS = ("auto", "native", "gluon")
_GLUON = {
    stack.FUSED: "MXNet's RNN operator",
    stack.LAYERWISE: "MXNet's RNN operator, layer by layer",
    stack.UNROLLED: "plain operators, step by step",
}


@dataclass(frozen=True)
class Backend:
    """The operators that a layer runs on, and the reason."""

    name: str  # native or gluon
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


class Request(NamedTuple):
    """The backend that was asked for."""

    name: str  # one of _BACKENDS
    source: str  # the argument or environment variable that asked, with its value


def requested(backend: Any) -> Request:
    """Return the backend that a layer's argument names, or else the one that the environment does.

    Raises
    ------
    ValueError
        The name is not one of the backends'.
    """
    source, name = "backend", backend
    if name is None:
        source, name = "FASTRNN_BACKEND", os.environ.get("FASTRNN_BACKEND", "auto")
    if name not in _BACKENDS:
        raise ValueError(f"{source}: expected one of {', '.join(_BACKENDS)}, got {name!r}")
    return Request(name, f"{source}={name}")


class Choice(NamedTuple):
    """The operators of a layer."""

    operators: str  # one of those in stack.py
    computed_in: str  # the dtype
    backend: Backend


@dataclass(frozen=True)
class Chooser:
    """Chooses from a layer's options and the process, never from a device.

    A traced graph serves all devices.
    """

    request: Request
    cell: Cell
    layers: int
    directions: int
    rates: Rates
    lengths: bool  # whether the layer takes them

    def choose(self, dtype: Any) -> Choice:
        """Choose the operators for parameters of a type.

        Raises
        ------
        TypeError
            `dtype` is not float16, float32 or float64.
        ValueError
            The native backend was asked for, and does not cover the layer.
        """
        dtype = checks.float_type(dtype)
        # On a CPU, MXNet has no recurrent operator in float16.
        half = dtype == np.float16 and not native.GPUS and self._obstacle("float16") is not None
        computed_in = "float32" if half else dtype.name
        note = "; float16 is computed in float32" if half else ""
        obstacle = self._obstacle(computed_in)
        if obstacle is None:
            reason = native.STATUS.reason + note
            return Choice(stack.NATIVE, computed_in, Backend("native", reason))
        if self.request.name == "native":
            raise ValueError(f"{self.request.source}: {obstacle}")
        operators = self._gluon_operators(computed_in)
        reason = f"{obstacle}; {_GLUON[operators]}{note}"
        return Choice(operators, computed_in, Backend("gluon", reason))

    def _obstacle(self, dtype: str) -> Optional[str]:
        """Return why the native operator cannot be used, or None."""
        cell = self.cell
        if self.request.name == "gluon":
            return self.request.source
        if not native.STATUS.usable:
            return native.STATUS.reason
        if dtype not in native.STATUS.types:
            return f"the native operator does not cover dtype={dtype}"
        if self.request.name == "native":
            return None
        options = (self.lengths, cell.projected, cell.clips, any(cell.noise), cell.layer_norm)
        kind = verdict.LayerKind(cell.mode, dtype, self.directions, *options)
        return verdict.obstacle(kind, cell.hidden_size, native.ON_CUDA, native.GPUS)

    def _gluon_operators(self, dtype: str) -> str:
        """Choose the fastest of MXNet's own operators that give correct results."""
        cell = self.cell
        options = (cell.projected, cell.clip_min is not None, cell.layer_norm, *cell.noise)
        if any(options):
            return stack.UNROLLED
        if dtype == "float16" and self.lengths:
            return stack.UNROLLED  # lengths.py needs numbers beyond its range
        if dtype == "float64" and cell.mode == "rnn_relu":
            return stack.UNROLLED  # the RNN operator rounds it to float32 on the CPU
        # The RNN operator has dropout between layers only, which it ignores on the CPU. For stacks
        # see rnn_operator.py.
        dropped = any(self.rates[1:]) or (self.rates.between and self.layers > 1)
        stacked = self.layers > 1 and rnn_operator.without_onednn(dtype)
        deep = cell.mode.startswith("rnn_") and self.layers > 2
        if self.lengths or dropped or stacked or deep:
            return stack.LAYERWISE
        return stack.FUSED
