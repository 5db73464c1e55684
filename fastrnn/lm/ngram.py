"""The baseline that counts: an interpolated n-gram model."""

from __future__ import annotations

import math
from collections import Counter
from typing import Dict, Iterator, List, Sequence, Tuple

import numpy as np

from fastrnn.lm.errors import InputError

# Tokens that are in a list at once: a list takes eight times the memory of a small type and more.
_AT_ONCE = 1 << 20


class NGram:
    """Predicts a token from the `order` tokens before it, by counting.

    Witten-Bell smoothing, interpolated down to the uniform distribution: with `c` a context, `n`
    how often it was seen, `t` how many different tokens followed it, and `shorter` the same context
    without its first token::

        p(x | c) = (count(c x) + t * p(x | shorter)) / (n + t)

    Witten & Bell, "The zero-frequency problem", IEEE Trans. Information Theory 37(4), 1991.

    Parameters
    ----------
    numbers : ndarray, shape (tokens,)
        The text to count in.
    order : int
        Tokens of context; 3 is what is often called a 4-gram model.
    vocab_size : int
    """

    def __init__(self, numbers: np.ndarray, order: int, vocab_size: int) -> None:
        if order < 0:
            raise InputError(f"order: got {order}, wanted at least 0")
        self.order = order
        self.vocab_size = vocab_size
        self._followed: Dict[Tuple[int, ...], Counter] = {}
        for length in range(order + 1):
            for tokens, _ in _pieces(numbers, length, len(numbers), length):
                for row in zip(*(tokens[begin:] for begin in range(length + 1))):
                    self._followed.setdefault(row[:-1], Counter())[row[-1]] += 1
        self._seen = {context: sum(c.values()) for context, c in self._followed.items()}

    def probability(self, token: int, context: Sequence[int]) -> float:
        """The probability of `token` after `context`, of which the last `order` tokens count."""
        value = 1 / self.vocab_size
        for length in range(min(self.order, len(context)) + 1):
            tail = tuple(context[len(context) - length :])
            followed = self._followed.get(tail)
            if followed is None:
                break
            kinds = len(followed)
            value = (followed[token] + kinds * value) / (self._seen[tail] + kinds)
        return value

    def evaluate(self, numbers: np.ndarray, first: int, last: int) -> float:
        """Mean loss on the tokens `first` to `last` (exclusive) of a text, nats per token."""
        losses = (
            -math.log(self.probability(tokens[at], tokens[max(0, at - self.order) : at]))
            for tokens, begin in _pieces(numbers, first, last, self.order)
            for at in range(begin, len(tokens))
        )
        return math.fsum(losses) / (last - first)


def _pieces(
    numbers: np.ndarray, first: int, last: int, before: int
) -> Iterator[Tuple[List[int], int]]:
    """The tokens `first` to `last` in lists, after up to `before` others; how many these are."""
    for begin in range(first, last, _AT_ONCE):
        start = max(0, begin - before)
        yield numbers[start : min(begin + _AT_ONCE, last)].tolist(), begin - start
