"""The cell of a recurrent layer, independent of the operators that compute it."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, NamedTuple, Optional, Tuple

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


class Cell(NamedTuple):
    """What one step computes."""

    mode: str  # a key of GATES
    hidden_size: int
    projection_size: int = 0  # LSTM only: h is the output times the h2r weight; 0: it is not
    clip_min: Optional[float] = None  # LSTM only: the cell state's range after each step
    clip_max: Optional[float] = None
    clip_nan: bool = False  # whether a NaN becomes clip_min

    @property
    def projected(self) -> bool:
        """Whether h is not the output itself."""
        return self.projection_size > 0

    @property
    def clips(self) -> bool:
        """Whether a step may change the cell state to clip it."""
        if self.clip_min is None or self.clip_max is None:
            return False
        return self.clip_min > -math.inf or self.clip_max < math.inf or self.clip_nan

    @property
    def outputs(self) -> int:
        """The size P of h and of the output."""
        return self.projection_size or self.hidden_size


class Clip(NamedTuple):
    """The range of an LSTM's cell state after each step, as cuDNN's cudnnRNNSetClip_v8 and MXNet's.

    The output is computed from the clipped state. No gradient passes through a state that was
    clipped; at the ends of the range it passes. Initial states are not clipped.

    Attributes
    ----------
    low, high : float
        The ends, infinite by default.
    nan : bool
        Whether NaN becomes `low`; otherwise it goes on.
    """

    low: float = -math.inf
    high: float = math.inf
    nan: bool = False


def checked_clip(clip: Any) -> Optional[Tuple[float, float, bool]]:
    """Return a `Clip` as the native library takes it; None stays None."""
    if clip is None:
        return None
    if not isinstance(clip, Clip):
        raise TypeError(f"clip is of type {type(clip).__name__}, expected a Clip")
    for name, end in (("low", clip.low), ("high", clip.high)):
        if not isinstance(end, Real):
            raise TypeError(f"clip.{name} is {end!r}, expected a number")
    if not clip.low <= clip.high:  # one of them may be NaN
        raise ValueError(
            f"clip is from {clip.low} to {clip.high}, expected a low end up to the high one"
        )
    return float(clip.low), float(clip.high), bool(clip.nan)
