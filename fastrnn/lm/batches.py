"""Texts as arrays: the parts of a corpus, batches for truncated BPTT, and sliding windows.

Nothing here needs MXNet. Token numbers are int32.
"""

from __future__ import annotations

from typing import Iterator, NamedTuple, Optional, Tuple

import numpy as np

from fastrnn.lm.config import Settings
from fastrnn.lm.errors import InputError
from fastrnn.lm.tokenizers import Tokenizer, normalize, tokenizer_for
from fastrnn.lm.vocabulary import Vocabulary

Batch = Tuple[np.ndarray, np.ndarray]


class Corpus(NamedTuple):
    """A text as token numbers, split by position; the parts do not overlap."""

    vocabulary: Vocabulary
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def split_sizes(length: int, validation: float, test: float) -> Tuple[int, int, int]:
    """How many of `length` tokens the parts get: the rounded shares, the rest for training."""
    held_out, tested = round(length * validation), round(length * test)
    return length - held_out - tested, held_out, tested


def encode_corpus(text: str, settings: Settings, tokenizer: Optional[Tokenizer] = None) -> Corpus:
    """Number the tokens of `text` and split them as `settings` say: training, validation, test.

    A character vocabulary is built from the whole text (there is no unknown character), a word
    vocabulary from the training part alone, so that the other parts hold unknown words as any new
    text does.

    Parameters
    ----------
    text : str
        It is normalized first.
    settings : Settings
        Of which `level`, `min_count`, `validation` and `test` count.
    tokenizer : Tokenizer, optional
        The newest one of the level by default.
    """
    tokenizer = tokenizer or tokenizer_for(settings.level)
    tokens = tokenizer.tokenize(normalize(text))
    if not len(tokens):
        raise InputError("the text is empty")
    first, second, _ = split_sizes(len(tokens), settings.validation, settings.test)
    known = tokens if settings.level == "character" else tokens[:first]
    vocabulary = Vocabulary.build(known, tokenizer, settings.min_count)
    numbers = vocabulary.numbers(tokens)
    return Corpus(
        vocabulary, numbers[:first], numbers[first : first + second], numbers[first + second :]
    )


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
    return np.ascontiguousarray(inputs.T), np.ascontiguousarray(targets.T)


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
    begins = np.arange(0, len(numbers) - width, stride)
    if not len(begins):
        raise too_short(numbers, f"a window of {width} takes {width + 1}")
    return numbers[begins[:, None] + np.arange(width)], numbers[begins + width]


def too_short(numbers: np.ndarray, wanted: str, use: str = "") -> InputError:
    """The error for a text, or a part of one, that does not fill what is `wanted`."""
    return InputError(f"data: the text is too short: {len(numbers)} tokens{use}, and {wanted}")
