"""The cell of a recurrent layer, independent of the operators that compute it."""

from __future__ import annotations

from typing import NamedTuple, Optional

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


class Cell(NamedTuple):
    """What one step computes."""

    mode: str  # a key of GATES
    hidden_size: int
    projected: bool = False  # LSTM only: h is the output times the h2r weight
    clip_min: Optional[float] = None  # LSTM only: the cell state's range after each step
    clip_max: Optional[float] = None
    clip_nan: bool = False  # whether a NaN becomes clip_min
