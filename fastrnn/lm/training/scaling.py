"""The loss scale of training in float16."""

from __future__ import annotations

from dataclasses import dataclass

from fastrnn.lm.errors import InputError

_STEADY = 2000  # updates without an overflow until the scale grows
_LEAST, _MOST = 2.0**-10, 2.0**24


@dataclass
class LossScale:
    """A factor on the loss, without which small gradients would be zero in float16.

    It halves when a gradient overflows, and doubles after 2000 updates without an overflow
    (Micikevicius et al., arXiv:1710.03740).

    Attributes
    ----------
    value : float
    steady : int
        Updates since the scale changed.
    """

    value: float = 2.0**12
    steady: int = 0

    def adjust(self, finite: bool) -> None:
        """Take note of whether a step's gradients were finite; InputError if they never are."""
        self.steady = self.steady + 1 if finite else 0
        if not finite:
            self.value /= 2
        elif self.steady == _STEADY:
            self.value, self.steady = min(2 * self.value, _MOST), 0
        if self.value < _LEAST:
            raise InputError(
                f"dtype: gradients overflow float16 at a loss scale of {2 * self.value}: training "
                f"diverged; try a lower --rate, or --dtype float32"
            )
