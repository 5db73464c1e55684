"""The baseline that counts: an interpolated n-gram model."""

from __future__ import annotations

from collections import Counter
from typing import Dict, Sequence, Tuple

import numpy as np

from fastrnn.lm.errors import InputError


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
        tokens = [int(number) for number in numbers]
        for length in range(order + 1):
            for end in range(length, len(tokens)):
                context = tuple(tokens[end - length : end])
                self._followed.setdefault(context, Counter())[tokens[end]] += 1
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
        tokens = [int(number) for number in numbers]
        losses = [
            -np.log(self.probability(tokens[at], tokens[max(0, at - self.order) : at]))
            for at in range(first, last)
        ]
        return float(np.mean(losses))
