"""Zoneout and dropout of the state, for the oracle (reference.py): what csrc/noise.h draws."""

from __future__ import annotations

from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

KEPT_H, KEPT_C, READ = range(3)  # the masks
_GROUP, _WORD = 32, 8  # units that share counters, and those between two words of a counter


class Noise(NamedTuple):
    """Zoneout (Krueger et al., arXiv:1606.01305) and dropout of the state, of one direction.

    A step reads ``read * h``, and keeps these shares of the states before it. Masks hold zeros and
    ones for shares; in the inference form, every share is zoneout's rate.
    """

    h: Any = 0.0  # [T, N, P]
    c: Any = 0.0  # [T, N, H]
    read: Any = 1.0  # [N, P]

    def at(self, time: int) -> Tuple[Any, Any]:
        """Return the shares of h and c that the step at a time keeps."""
        h, c = (s if np.ndim(s) == 0 else s[time] for s in (self.h, self.c))
        return h, c


def philox(counters: Any, key: Any) -> Any:
    """Philox4x32-7 (Salmon et al. 2011): counters [..., 4] of 32 bits become as many words."""
    mask = np.uint64(0xFFFFFFFF)
    first, second, third, fourth = (counters[..., k].astype(np.uint64) for k in range(4))
    low, high = (np.uint64(k) for k in key)
    for _ in range(7):
        a, b = np.uint64(0xD2511F53) * first, np.uint64(0xCD9E8D57) * third
        first, second = b >> np.uint64(32) ^ second ^ low, b & mask
        third, fourth = a >> np.uint64(32) ^ fourth ^ high, a & mask
        low, high = low + np.uint64(0x9E3779B9) & mask, high + np.uint64(0xBB67AE85) & mask
    return np.stack([first, second, third, fourth], axis=-1)


def uniform(seed: int, shape: Tuple[int, int, int], stream: int) -> Any:
    """Return numbers from 0 to 1 for [steps, rows, units]."""
    steps, rows, units = shape
    groups = -(-units // _GROUP)
    counters = np.zeros((steps, rows, groups * _WORD, 4), np.uint64)
    counters[..., 0] = np.arange(groups * _WORD)
    counters[..., 1] = np.arange(rows)[:, np.newaxis]
    counters[..., 2] = np.arange(steps)[:, np.newaxis, np.newaxis]
    counters[..., 3] = stream
    words = philox(counters, (seed & 0xFFFFFFFF, seed >> 32))
    # A counter's four words are those of units that are _WORD apart.
    ordered = words.reshape(steps, rows, groups, _WORD, 4).swapaxes(3, 4)
    every = ordered.reshape(steps, rows, groups * _GROUP)[..., :units]
    return (every >> np.uint64(8)).astype(np.float64) / 2**24


def drawn(
    rates: Sequence[float],
    seed: Optional[int],
    sizes: Tuple[int, int, int, int],
    layers: int = 1,
    directions: int = 1,
) -> List[Noise]:
    """Return what a stack draws, ordered (layer, direction).

    Parameters
    ----------
    rates
        A `fastrnn.kernels.Noise`.
    seed
        64 bits; None: the inference form.
    sizes
        T, N, H and P.
    """
    steps, rows, hidden, outputs = sizes
    of_h, of_c, of_read = rates
    if seed is None:
        return [Noise(of_h, of_c)] * (layers * directions)

    def below(rate: float, size: int, mask: int, block: int, times: int) -> Any:
        numbers = uniform(seed, (times, rows, size), mask + 4 * block)
        return (numbers < np.float32(rate)).astype(np.float64)

    found = []
    for k in range(layers * directions):
        block = k % directions + 2 * (k // directions)
        left = 1 - below(of_read, outputs, READ, block, 1)[0]
        kept_h = below(of_h, outputs, KEPT_H, block, steps)
        kept_c = below(of_c, hidden, KEPT_C, block, steps)
        found.append(Noise(kept_h, kept_c, left / (1 - of_read) if of_read < 1 else 0 * left))
    return found
