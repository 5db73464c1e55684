"""Models that fit texts by their size."""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Tuple

_MILLION = 1_000_000


class Size(NamedTuple):
    """Settings for texts of fewer than so many tokens."""

    below: float
    settings: Dict[str, Any]


def _size(below: float, hidden: int, batch: int, steps: int, rate: float, **others: Any) -> Size:
    usual = {"embed": min(64, hidden), "layers": 1, "dropout": 0.3}
    shape = {"hidden": hidden, "batch": batch, "steps": steps, "rate": rate}
    return Size(below, {**usual, **shape, **others})


# A model that is much larger than its text learns it by heart; one that is smaller learns less than
# there is. Few rows in a batch make for more updates of a small text.
SIZES: Tuple[Size, ...] = (
    _size(0.03 * _MILLION, 64, 4, 32, 0.004),
    _size(0.15 * _MILLION, 128, 8, 64, 0.004),
    _size(2 * _MILLION, 256, 16, 64, 0.004),
    _size(20 * _MILLION, 512, 32, 100, 0.002, ngram=0),
    _size(float("inf"), 1024, 64, 100, 0.001, dropout=0.1, ngram=0),
)


def sizes_for(tokens: int) -> List[Dict[str, Any]]:
    """Settings for a text of so many tokens, and those of smaller models after them."""
    fitting = next(n for n, size in enumerate(SIZES) if tokens < size.below)
    return [size.settings for size in SIZES[fitting::-1]]
