"""What a layer's arguments have to look like: each check says what came and what was wanted."""

from __future__ import annotations

import numbers
from typing import Any, Optional, Sequence, Tuple

import numpy as np

from fastrnn._mxnet import import_mxnet, mixed_precision
from fastrnn.cell import GATES

mx = import_mxnet()


def _integer(name: str, value: Any, low: int) -> None:
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise TypeError(f"{name}: expected an integer, got {value!r}")
    if value < low:
        raise ValueError(f"{name}: expected at least {low}, got {value}")


def sizes(
    hidden_size: int, num_layers: int, input_size: int, projection_size: Optional[int]
) -> None:
    """Check a layer's sizes; `input_size` is 0 where the first call tells."""
    _integer("hidden_size", hidden_size, 1)
    _integer("num_layers", num_layers, 1)
    _integer("input_size", input_size, 0)
    if projection_size is not None:
        _integer("projection_size", projection_size, 0)  # 0 is MXNet's other word for none


def _number(name: str, value: Any) -> None:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise TypeError(f"{name}: expected a number, got {value!r}")


def float_type(value: Any) -> Any:
    """Check a layer's number type, and return it as NumPy's."""
    try:
        dtype = None if value is None else np.dtype(value)  # None would mean float64
    except TypeError:
        dtype = None
    if dtype is None or dtype.name not in ("float16", "float32", "float64"):
        raise TypeError(f"dtype: expected float16, float32 or float64, got {value!r}")
    return dtype


def choices(mode: str, layout: str, dropout: float) -> None:
    """Check activation (a part of the mode), layout and dropout."""
    if mode not in GATES:
        raise ValueError(f"activation: expected 'relu' or 'tanh', got {mode[len('rnn_') :]!r}")
    if layout not in ("TNC", "NTC"):
        raise ValueError(f"layout: expected 'TNC' or 'NTC', got {layout!r}")
    _number("dropout", dropout)
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout: expected a probability from 0 to below 1, got {dropout!r}")


def clipping(low: Optional[float], high: Optional[float]) -> None:
    """Check the LSTM's range for the cell state."""
    if (low is None) != (high is None):
        raise ValueError(
            "state_clip_min, state_clip_max: expected both or neither, "
            f"got state_clip_min={low!r}, state_clip_max={high!r}"
        )
    if low is None or high is None:
        return
    _number("state_clip_min", low)
    _number("state_clip_max", high)
    if not low <= high:
        raise ValueError(f"state_clip_min: expected at most state_clip_max={high!r}, got {low!r}")


def _dense(name: str, value: Any) -> None:
    if isinstance(value, mx.nd.sparse.BaseSparseNDArray):
        raise TypeError(f"{name}: expected a dense array, got {value.stype}")


def array(name: str, value: Any, kind: Any, shape: Tuple[int, ...], device: Any) -> None:
    """Check an array that has to have this NumPy scalar type, this shape and this device."""
    if not isinstance(value, mx.nd.NDArray):
        raise TypeError(f"{name}: expected an MXNet array, got {type(value).__name__}")
    _dense(name, value)
    if value.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {value.shape}")
    if value.dtype != kind and not mixed_precision():
        raise TypeError(f"{name}: expected dtype {np.dtype(kind)}, got {np.dtype(value.dtype)}")
    if value.ctx != device:
        raise ValueError(f"{name}: expected an array on {device}, where inputs is, got {value.ctx}")


def inputs(value: Any, layout: str, features: int, kind: Any) -> int:
    """Check a layer's input; `features` below 1 means that any number will do. Returns N."""
    _dense("inputs", value)
    features = max(features, 0)  # NumPy shapes say -1 for unknown
    shape = value.shape
    wanted = f"({', '.join(layout[:2])}, {features or 'C'})"
    if len(shape) != 3 or 0 in shape or features not in (0, shape[2]):
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
    """Check the array of the rows' lengths, not what it holds."""
    kind = getattr(value, "dtype", None)  # any will do
    array("sequence_length", value, kind, (rows,), like.ctx)


def lengths(value: Any, steps: int) -> None:
    """Check the lengths of the rows. Waits until they are computed."""
    found = value.asnumpy()
    if not ((found >= 0) & (found <= steps)).all():
        raise ValueError(f"sequence_length: expected lengths from 0 to {steps}, got {found}")
