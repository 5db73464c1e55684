"""Checks of a layer's arguments: each error says what was expected and what was passed."""

from __future__ import annotations

import math
import numbers
from typing import Any, Mapping, Optional, Sequence, Tuple

import numpy as np

from fastrnn.mxnet import import_mxnet, mixed_precision

mx = import_mxnet()


def _integer(name: str, value: Any, low: int) -> None:
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise TypeError(f"{name}: expected an integer, got {value!r}")
    if value < low:
        raise ValueError(f"{name}: expected at least {low}, got {value}")


def sizes(options: Mapping[str, Any]) -> None:
    """Check a layer's sizes; an `input_size` of 0 is inferred in the first call."""
    _integer("hidden_size", options["hidden_size"], 1)
    _integer("num_layers", options["num_layers"], 1)
    _integer("input_size", options["input_size"], 0)
    if options["projection_size"]:  # None, 0 and False stand for no projection
        _integer("projection_size", options["projection_size"], 1)


def _number(name: str, value: Any) -> float:
    """Return a number, which may be given as a bool or a string, as for MXNet's operators."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a number, got {value!r}") from None


def float_type(value: Any) -> Any:
    """Check a layer's dtype, and return it as NumPy's."""
    try:
        dtype = None if value is None else np.dtype(value)  # None would mean float64
    except TypeError:
        dtype = None
    if dtype is None or dtype.name not in ("float16", "float32", "float64"):
        raise TypeError(f"dtype: expected float16, float32 or float64, got {value!r}")
    return dtype


def activation(value: Any) -> None:
    """Check an Elman network's activation."""
    if value not in ("relu", "tanh"):
        raise ValueError(f"activation: expected 'relu' or 'tanh', got {value!r}")


def layout(value: Any) -> None:
    """Check the order of an input's dimensions."""
    if value not in ("TNC", "NTC"):
        raise ValueError(f"layout: expected 'TNC' or 'NTC', got {value!r}")


def rate(name: str, value: Any) -> float:
    """Check a rate of dropout or zoneout, and return it as a number."""
    number = _number(name, value)
    if not 0 <= number <= 1:
        raise ValueError(f"{name}: expected a probability from 0 to 1, got {value!r}")
    return number


def clipping(low: Any, high: Any) -> Tuple[Optional[float], Optional[float]]:
    """Check the LSTM's range for the cell state, and return it: two numbers or two None.

    A bound that is not passed is infinite.
    """
    if low is None and high is None:
        return None, None
    first = -math.inf if low is None else _number("state_clip_min", low)
    last = math.inf if high is None else _number("state_clip_max", high)
    if not first <= last:
        raise ValueError(f"state_clip_min: expected at most state_clip_max={high!r}, got {low!r}")
    return first, last


def layer_norm(
    projection_size: Any, clip: Tuple[Optional[float], Optional[float]], noise: Any
) -> None:
    """Check what else a layer-normalised layer was given."""
    if projection_size:
        raise ValueError(
            f"layer_norm: expected no projection_size with it, got {projection_size!r}"
        )
    if clip != (None, None):
        raise ValueError(
            f"layer_norm: expected no state_clip_min and state_clip_max with it, got {clip}"
        )
    if any(noise):
        raise ValueError(f"layer_norm: expected no zoneout and no drop_states with it, got {noise}")


def _dense(name: str, value: Any) -> None:
    if isinstance(value, mx.nd.sparse.BaseSparseNDArray):
        raise TypeError(f"{name}: expected a dense array, got {value.stype}")


def array(name: str, value: Any, kind: Any, shape: Tuple[int, ...], device: Any) -> None:
    """Check that an array has this NumPy scalar type, this shape and this device."""
    if not isinstance(value, mx.nd.NDArray):
        raise TypeError(f"{name}: expected an MXNet array, got {type(value).__name__}")
    _dense(name, value)
    if value.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {value.shape}")
    if value.dtype != kind and not mixed_precision():
        raise TypeError(f"{name}: expected dtype {np.dtype(kind)}, got {np.dtype(value.dtype)}")
    if not _one_memory(value.ctx, device):
        raise ValueError(f"{name}: expected an array on {device}, where inputs is, got {value.ctx}")


def _one_memory(device: Any, other: Any) -> bool:
    """Whether an operator takes arrays of both: MXNet's kinds of CPU device share one memory."""
    return device == other or "gpu" not in (device.device_type, other.device_type)


def inputs(value: Any, layout: str, features: int, kind: Any) -> int:
    """Check a layer's input, and return N; with `features` below 1, any number is accepted."""
    _dense("inputs", value)
    features = max(features, 0)  # NumPy shapes say -1 for unknown
    shape = value.shape
    # A batch may be empty, which MXNet supports with NumPy's shapes; the other sizes may not be 0.
    if (
        len(shape) != 3
        or 0 in (shape[layout.index("T")], shape[2])
        or features not in (0, shape[2])
    ):
        wanted = f"({', '.join(layout[:2])}, {features or 'C'})"
        raise ValueError(f"inputs: expected shape {wanted}, each at least 1, got {shape}")
    if value.dtype != kind and not mixed_precision():
        raise TypeError(f"inputs: expected dtype {np.dtype(kind)}, got {np.dtype(value.dtype)}")
    return shape[layout.index("N")]


def states(values: Sequence[Any], like: Any, kind: Any, shapes: Sequence[Tuple[int, ...]]) -> None:
    """Check the states given to a layer whose input is `like`."""
    if not isinstance(values, (list, tuple)):
        raise TypeError(f"states: expected a list of MXNet arrays, got {type(values).__name__}")
    if len(values) != len(shapes):
        raise ValueError(f"states: expected {len(shapes)} array(s), got {len(values)}")
    device = like.ctx
    for k, (value, shape) in enumerate(zip(values, shapes)):
        array(f"states[{k}]", value, kind, shape, device)


def sequence_length(value: Any, like: Any, rows: int) -> None:
    """Check the array of the rows' lengths, not its values."""
    kind = getattr(value, "dtype", None)  # any type is accepted
    array("sequence_length", value, kind, (rows,), like.ctx)


def lengths(value: Any, steps: int) -> None:
    """Check the rows' lengths. Waits until they are computed."""
    found = value.asnumpy()
    if not ((found >= 0) & (found <= steps)).all():
        raise ValueError(f"sequence_length: expected lengths from 0 to {steps}, got {found}")
