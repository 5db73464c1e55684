"""Choosing tokens, and where a text stops."""

from __future__ import annotations

from typing import Iterable, Iterator, Optional

import numpy as np

from fastrnn.lm.errors import InputError


def check_options(
    length: int,
    temperature: float,
    top_k: int,
    top_p: float,
    seed: Optional[int],
    stop: Optional[str],
) -> None:
    """InputError for an option of :meth:`Writer.generate` that is out of range."""
    for name, value, fits, wanted in (
        ("temperature", temperature, 0 <= temperature < float("inf"), "0 or more"),
        ("top_k", top_k, top_k >= 0, "0 or more"),
        ("top_p", top_p, 0 < top_p <= 1, "more than 0 and at most 1"),
        ("length", length, length >= 0, "at least 0"),
        ("seed", seed, seed is None or seed >= 0, "at least 0"),
        ("stop", repr(stop), stop != "", "at least one character"),
    ):
        if not fits:
            raise InputError(f"{name}: got {value}, wanted {wanted}")


def until(pieces: Iterable[str], stop: str) -> Iterator[str]:
    """The text of `pieces` before the first `stop`, each part as soon as it is known to be that."""
    held = ""
    for piece in pieces:
        held += piece
        before, found, _ = held.partition(stop)
        if found:
            yield before
            return
        begun = next(n for n in range(min(len(stop), len(held)), -1, -1) if held.endswith(stop[:n]))
        ready = len(held) - begun
        if ready:
            yield held[:ready]
            held = held[ready:]
    if held:
        yield held


def choose(
    log_probabilities: np.ndarray,
    generator: np.random.Generator,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> int:
    """Draw one token, with options as for :meth:`Writer.generate`.

    Temperature comes first, then the `top_k` likeliest are kept, then among these the fewest that
    together have the probability `top_p`. Equally likely tokens rank by their number.
    """
    if temperature == 0:
        return int(np.argmax(log_probabilities))
    ranked = np.argsort(-log_probabilities, kind="stable")
    if top_k:
        ranked = ranked[:top_k]
    with np.errstate(over="ignore"):  # a score of minus infinity is a probability of zero
        scores = (log_probabilities[ranked] - log_probabilities[ranked[0]]) / temperature
    probabilities = np.exp(scores)
    probabilities /= probabilities.sum()
    before = np.cumsum(probabilities) - probabilities
    kept = before < top_p
    ranked, probabilities = ranked[kept], probabilities[kept]
    return int(ranked[generator.choice(len(ranked), p=probabilities / probabilities.sum())])
