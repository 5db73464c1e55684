"""Text as arrays: the split of a corpus, BPTT batches and sliding windows.

Nothing here needs MXNet. Token numbers are int32.
"""

from __future__ import annotations

from typing import Iterator, NamedTuple, Optional, Tuple

import numpy as np

from fastrnn.lm.errors import InputError
from fastrnn.lm.segmentation import normalize
from fastrnn.lm.vocabulary import CharacterVocabulary, Vocabulary, vocabulary_class


class Corpus(NamedTuple):
    """A text as token numbers, split by position; the parts do not overlap."""

    vocabulary: Vocabulary
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def split_sizes(length: int, validation: float, test: float) -> Tuple[int, int, int]:
    """How many tokens the three parts get: the rounded shares, the rest for training.

    Parameters
    ----------
    length : int
        Tokens in the text.
    validation, test : float
        Shares of the text, 0 or more, together below 1.
    """
    for name, share in (("validation", validation), ("test", test)):
        if not 0 <= share < 1:
            raise InputError(f"{name}: got {share}, wanted a share of the text from 0 to below 1")
    if validation + test >= 1:
        raise InputError(
            f"validation and test: got {validation} and {test}, which leaves nothing to train on"
        )
    held_out, tested = round(length * validation), round(length * test)
    return length - held_out - tested, held_out, tested


def encode_corpus(
    text: str,
    level: str = "character",
    validation: float = 0.05,
    test: float = 0.0,
    min_count: int = 1,
    like: Optional[Vocabulary] = None,
) -> Corpus:
    """Number the tokens of `text` and split them by position: training, validation, test.

    A character vocabulary is built from the whole text (there is no unknown character), a word
    vocabulary from the training part alone, so that the other parts hold unknown words as any new
    text does.

    Parameters
    ----------
    text : str
        It is normalized first, as :func:`fastrnn.lm.segmentation.normalize` does.
    level : 'character', 'word' or 'whitespace'
    validation, test : float
        Shares of the text, in tokens.
    min_count : int
        Words seen less often in the training part are unknown. Characters are all kept.
    like : Vocabulary, optional
        Cut the very text that this one was built from as it was cut then.

    Raises
    ------
    InputError
        For an empty text, or a level or share that makes no sense.
    """
    cls = type(like) if like else vocabulary_class(level)
    if not like:
        text = normalize(text)
    tokens = cls.tokenize(text)
    if not len(tokens):
        raise InputError("the text is empty")
    first, second, _ = split_sizes(len(tokens), validation, test)
    vocabulary = cls.build(tokens if cls is CharacterVocabulary else tokens[:first], min_count)
    numbers = vocabulary.numbers(tokens)
    return Corpus(
        vocabulary, numbers[:first], numbers[first : first + second], numbers[first + second :]
    )


def arrange(numbers: np.ndarray, batch: int) -> Tuple[np.ndarray, np.ndarray]:
    """Lay a text out as `batch` parallel streams.

    Column n of both arrays is one contiguous piece of the text, and the target of every token is
    the token after it, so column n + 1 of the inputs begins with the last target of column n.
    Every token but the first is a target exactly once, except the at most ``batch - 1`` at the end
    that would not fill a row.

    Parameters
    ----------
    numbers : ndarray, shape (tokens,)
    batch : int

    Returns
    -------
    inputs, targets : ndarray, shape (steps, batch)

    Raises
    ------
    InputError
        If the text is too short for one row.
    """
    if batch < 1:
        raise InputError(f"batch: got {batch}, wanted at least 1")
    steps = (len(numbers) - 1) // batch
    if steps < 1:
        raise InputError(
            f"the text is too short: {len(numbers)} tokens, "
            f"and a batch of {batch} needs at least {batch + 1}"
        )
    inputs = numbers[: steps * batch].reshape(batch, steps)
    targets = numbers[1 : steps * batch + 1].reshape(batch, steps)
    return np.ascontiguousarray(inputs.T), np.ascontiguousarray(targets.T)


def bptt_batches(
    inputs: np.ndarray, targets: np.ndarray, steps: int
) -> Iterator[Tuple[np.ndarray, np.ndarray]]:
    """Cut (total steps, batch) arrays into pieces of `steps` rows; the last one may be shorter.

    Every row is in exactly one piece, in order: carry the state from each to the next.
    """
    if steps < 1:
        raise InputError(f"steps: got {steps}, wanted at least 1")
    for begin in range(0, len(inputs), steps):
        yield inputs[begin : begin + steps], targets[begin : begin + steps]


def sliding_windows(
    numbers: np.ndarray, width: int, stride: int = 1
) -> Tuple[np.ndarray, np.ndarray]:
    """Windows of `width` tokens, each with the token after it.

    Parameters
    ----------
    numbers : ndarray, shape (tokens,)
    width : int
        Tokens in a window.
    stride : int
        Tokens from the start of one window to the start of the next.

    Returns
    -------
    windows : ndarray, shape (count, width)
    targets : ndarray, shape (count,)

    Raises
    ------
    InputError
        If the text is too short for one window and its target.
    """
    if width < 1 or stride < 1:
        raise InputError(f"width and stride: got {width} and {stride}, wanted at least 1")
    begins = np.arange(0, len(numbers) - width, stride)
    if not len(begins):
        raise InputError(
            f"the text is too short: {len(numbers)} tokens, "
            f"and a window of {width} needs at least {width + 1}"
        )
    return numbers[begins[:, None] + np.arange(width)], numbers[begins + width]
