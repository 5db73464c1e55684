"""The error of the CUDA kernels' sigmoid, from the documented errors of its instructions.

No GPU is needed: csrc/cells/math.h's arithmetic is repeated in float64, and each documented error
is added at its largest, in the direction in which they all add up.
"""

from __future__ import annotations

import numpy as np
import pytest

U = 2.0**-24  # half a unit in the last place of 1
BOUND = 3.3e-7


def device_sigmoid(x, sign):
    """Return 1 / (1 + exp(-x)) with the largest errors, all of the sign that moves it that way."""
    with np.errstate(over="ignore", invalid="ignore"):
        # Beyond 128 exp is infinite or less than an error of 1.
        e = np.exp(-x) * (1 - sign * (4 + 2 * 1.173 * np.minimum(np.abs(x), 128)) * U)
        e = np.where(e > np.finfo(np.float32).max, np.inf, e)
        return 1 / ((1 + e) * (1 - sign * U)) * (1 + sign * 4 * U)


@pytest.mark.parametrize("sign", [-1, 1])
def test_sigmoid_is_accurate_for_all_numbers(sign):
    tiny = np.logspace(-38, 0, 1000)
    x = np.concatenate([np.linspace(-120, 120, 240001), tiny, -tiny])
    exact = np.where(x > 0, 1 / (1 + np.exp(-np.abs(x))), 1 - 1 / (1 + np.exp(-np.abs(x))))
    error = np.abs(device_sigmoid(x, sign) - exact)
    assert error.max() < BOUND
    assert error.max() > BOUND / 2  # The bound says something.


def test_sigmoid_of_special_numbers():
    x = np.array([-np.inf, -1e38, -89, 89, 1e38, np.inf, np.nan])
    np.testing.assert_allclose(device_sigmoid(x, 1), [0, 0, 0, 1, 1, 1, np.nan], atol=BOUND)
