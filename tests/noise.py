"""The masks of zoneout and of dropout of the state, as csrc/noise.h describes them, in NumPy."""

from __future__ import annotations

from typing import Any, List

import numpy as np
import reference as ref

KEPT_H, KEPT_C, READ = range(3)


def philox(counters: Any, key: Any) -> Any:
    """Philox4x32-10 (Salmon et al. 2011): counters [..., 4] of 32 bits become as many words."""
    mask = np.uint64(0xFFFFFFFF)
    first, second, third, fourth = (counters[..., k].astype(np.uint64) for k in range(4))
    low, high = (np.uint64(k) for k in key)
    for _ in range(10):
        a, b = np.uint64(0xD2511F53) * first, np.uint64(0xCD9E8D57) * third
        first, second = b >> np.uint64(32) ^ second ^ low, b & mask
        third, fourth = a >> np.uint64(32) ^ fourth ^ high, a & mask
        low, high = low + np.uint64(0x9E3779B9) & mask, high + np.uint64(0xBB67AE85) & mask
    return np.stack([first, second, third, fourth], axis=-1)


def uniform(seed: int, shape: Any, stream: int) -> Any:
    """Return the numbers of all units of [steps, rows, units]."""
    steps, rows, units = shape
    unit = np.arange(units)
    counters = np.zeros((*shape, 4), np.uint64)
    counters[..., 0] = unit // 64 * 16 + unit % 16
    counters[..., 1] = np.arange(rows)[:, np.newaxis]
    counters[..., 2] = np.arange(steps)[:, np.newaxis, np.newaxis]
    counters[..., 3] = stream
    words = philox(counters, (seed & 0xFFFFFFFF, seed >> 32))
    word = np.broadcast_to(unit // 16 % 4, shape)[..., np.newaxis]
    chosen = np.take_along_axis(words, word.astype(np.int64), axis=-1)[..., 0]
    return (chosen >> np.uint64(8)).astype(np.float64) / 2**24


def drawn(
    rates: Any, seed: Any, sizes: Any, layers: int = 1, directions: int = 1
) -> List[ref.Noise]:
    """Return what the oracle takes for a stack, from the rates of `kernels.Noise`.

    `sizes` are T, N, H and P; a seed of None stands for the inference form.
    """
    steps, rows, hidden, outputs = sizes
    of_h, of_c, of_read = rates
    if seed is None:
        return [ref.Noise(of_h, of_c)] * (layers * directions)

    def below(rate, size, mask, block, times):
        numbers = uniform(seed, (times, rows, size), mask + 4 * block)
        return (numbers < np.float32(rate)).astype(np.float64)

    found = []
    for k in range(layers * directions):
        block = k % directions + 2 * (k // directions)
        left = 1 - below(of_read, outputs, READ, block, 1)[0]
        kept_h = below(of_h, outputs, KEPT_H, block, steps)
        kept_c = below(of_c, hidden, KEPT_C, block, steps)
        found.append(ref.Noise(kept_h, kept_c, left / (1 - of_read) if of_read < 1 else 0 * left))
    return found
