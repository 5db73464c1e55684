"""The cell of a recurrent layer, independent of the operators that compute it."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, List, NamedTuple, Optional, Tuple

import numpy as np

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


class Noise(NamedTuple):
    """What a training call draws in each step; all rates are probabilities from 0 to 1.

    Zoneout is that of Krueger et al. (arXiv:1606.01305): a unit that is drawn keeps its value from
    before the step, and h is computed from c as it is without zoneout. Where nothing is drawn, a
    state is the mean: rate times the value before plus (1 - rate) times the new one.

    Attributes
    ----------
    zoneout_outputs : float
        The rate for units of h, which is also the output.
    zoneout_states : float
        The rate for units of c, LSTM only.
    drop_states : float
        The rate of variational dropout of h (Gal and Ghahramani, arXiv:1512.05287): units of each
        row that all steps read as zero. The others are read times 1 / (1 - rate). The h that is
        output and returned is not masked.
    """

    zoneout_outputs: float = 0.0
    zoneout_states: float = 0.0
    drop_states: float = 0.0


class Cell(NamedTuple):
    """What one step computes."""

    mode: str  # a key of GATES
    hidden_size: int
    projection_size: int = 0  # P, LSTM only; 0: h is not projected
    clip_min: Optional[float] = None  # LSTM only: the cell state's range after each step
    clip_max: Optional[float] = None
    clip_nan: bool = False  # whether a NaN becomes clip_min
    noise: Noise = Noise()
    layer_norm: bool = False  # LSTM and GRU only

    @property
    def projected(self) -> bool:
        """Whether h is a projection of what the cell computes."""
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

    @property
    def weight_names(self) -> List[str]:
        """The names of a direction's parameters, in order.

        Besides weights and biases, h2r_weight [P, H] of a projected cell; i2h_gamma [G*H] and
        h2h_gamma [G*H] of a layer-normalised one, and c_gamma [H] and c_beta [H] if it is an LSTM.
        """
        names = ["i2h_weight", "h2h_weight", "i2h_bias", "h2h_bias"]
        names += ["h2r_weight"] if self.projected else []
        names += ["i2h_gamma", "h2h_gamma"] if self.layer_norm else []
        return names + (["c_gamma", "c_beta"] if self.layer_norm and self.mode == "lstm" else [])


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


def checked_flag(name: str, value: Any) -> bool:
    """Return an argument that is True or False, perhaps NumPy's, as Python's own."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is {value!r}, expected True or False")
    return bool(value)


def checked_noise(noise: Any) -> Optional[Tuple[float, float, float]]:
    """Return a `Noise` as the native library takes it; None stays None."""
    if noise is None:
        return None
    if not isinstance(noise, Noise):
        raise TypeError(f"noise is of type {type(noise).__name__}, expected a Noise")
    for name, rate in zip(noise._fields, noise):
        # An abstract class takes longer, and most are floats.
        if not isinstance(rate, (float, int, Real)) or isinstance(rate, bool):
            raise TypeError(f"noise.{name} is {rate!r}, expected a number")
        if not 0 <= rate <= 1:
            raise ValueError(f"noise.{name} is {rate}, expected a probability from 0 to 1")
    return float(noise[0]), float(noise[1]), float(noise[2])
