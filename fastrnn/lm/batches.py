"""Token numbers as batches for truncated BPTT and as sliding windows.

Nothing here needs MXNet, and nothing copies the numbers, which may be those of a large text.
"""

from __future__ import annotations

from typing import Iterator, Tuple

import numpy as np

from fastrnn.lm.errors import InputError

Batch = Tuple[np.ndarray, np.ndarray]


def arrange(numbers: np.ndarray, batch: int) -> Batch:
    """Lay a text out as `batch` parallel streams.

    Column n of both arrays is one contiguous piece of the text, and the target of every token is
    the token after it, so column n + 1 of the inputs begins with the last target of column n.
    Every token but the first is a target exactly once, except the at most ``batch - 1`` at the end
    that would not fill a row.

    Returns
    -------
    inputs, targets : ndarray, shape (steps, batch)
    """
    steps = (len(numbers) - 1) // batch
    if steps < 1:
        raise too_short(numbers, f"a batch of {batch} takes {batch + 1}")
    inputs = numbers[: steps * batch].reshape(batch, steps)
    targets = numbers[1 : steps * batch + 1].reshape(batch, steps)
    return inputs.T, targets.T


def bptt_batches(inputs: np.ndarray, targets: np.ndarray, steps: int) -> Iterator[Batch]:
    """Cut (total steps, batch) arrays into pieces of `steps` rows; the last one may be shorter.

    Every row is in exactly one piece, in order: carry the state from each to the next.
    """
    for begin in range(0, len(inputs), steps):
        yield inputs[begin : begin + steps], targets[begin : begin + steps]


def sliding_windows(numbers: np.ndarray, width: int, stride: int = 1) -> Batch:
    """Windows of `width` tokens that begin `stride` apart, each with the token after it.

    Returns
    -------
    windows : ndarray, shape (count, width)
    targets : ndarray, shape (count,)
    """
    targets = numbers[width::stride]
    if not len(targets):
        raise too_short(numbers, f"a window of {width} takes {width + 1}")
    step = numbers.strides[0]
    windows = np.lib.stride_tricks.as_strided(
        numbers, (len(targets), width), (stride * step, step), writeable=False
    )
    return windows, targets


def too_short(numbers: np.ndarray, wanted: str, use: str = "") -> InputError:
    """The error for a text, or a part of one, that does not fill what is `wanted`."""
    return InputError(f"data: the text is too short: {len(numbers)} tokens{use}, and {wanted}")
