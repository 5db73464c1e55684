"""Keystrokes saved: the figure by which the keyboards of phones are compared.

Somebody types a text with three suggestions above the keys, which are those of
:meth:`fastrnn.lm.generation.Writer.suggest`. Each character costs one key. As soon as the word is
among the suggestions, the person takes it: one tap instead of the word's remaining characters. The
space after the word is not part of it, and costs a key as every sign does. A model of words
suggests a word before its first character, a model of characters from then on.
"""

from __future__ import annotations

from itertools import chain, islice
from typing import Iterator, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from fastrnn.lm.errors import InputError
from fastrnn.lm.generation import Writer
from fastrnn.lm.texts import Text
from fastrnn.lm.tokenizers import END_OF_LINE, JOINERS, UNKNOWN, Tokenizer, in_word

SUGGESTIONS = 3


class Keystrokes(NamedTuple):
    """What it takes to type a text.

    Attributes
    ----------
    words : int
    characters : int
        All of them, with spaces and signs, up to the end of the last word.
    keys : int
        Keys and taps with suggestions; as many as `characters` without them.
    """

    words: int
    characters: int
    keys: int

    @property
    def saved(self) -> Optional[float]:
        """The share of keystrokes that suggestions save; None without a word."""
        return 1 - self.keys / self.characters if self.words else None


def keystrokes(writer: Writer, tokens: Sequence[str], words: int) -> Keystrokes:
    """Count what it takes to type the first `words` words of a text, or all if it has fewer.

    Parameters
    ----------
    writer : Writer
    tokens : sequence of str
        As the model's tokenizer cuts them from a text.
    words : int
        Each takes a model of characters some dozens of steps.
    """
    if words < 1:
        raise InputError(f"keystrokes: got {words}, wanted at least 1")
    if writer.vocabulary.level == "character":
        counted = _of_characters(writer, "".join(tokens))
    else:
        counted = _of_words(writer, tokens)
    total = Keystrokes(0, 0, 0)
    for characters, keys in islice(counted, words):
        total = Keystrokes(total.words + 1, total.characters + characters, total.keys + keys)
    return total


def tokens_between(text: Text, tokenizer: Tokenizer, first: int, last: int) -> Iterator[str]:
    """The tokens `first` to `last` (exclusive) of a text, also those no model knows."""
    tokens = chain.from_iterable(tokenizer.tokenize_pieces(text.pieces()))
    return islice(tokens, first, last)


def count_characters(tokenizer: Tokenizer, tokens: Iterator[str]) -> int:
    """How many characters the text has that `tokens` make."""
    return sum(map(len, _texts(tokenizer, tokens)))


def _texts(tokenizer: Tokenizer, tokens: Iterator[str]) -> Iterator[str]:
    """The text of each token, with the space before it where there is one."""
    before: Tuple[str, ...] = ()
    for token in tokens:
        text = tokenizer.detokenize([*before, token])
        yield text[len(tokenizer.detokenize(before)) :]
        before = (token,)


def _of_characters(writer: Writer, text: str) -> Iterator[Tuple[int, int]]:
    """Characters and keys of each word and what stands before it."""
    vocabulary, state, read = writer.vocabulary, None, 0
    after = 0  # where the word before ended
    for begin, end in _words(text):
        for typed in range(begin + 1, end):
            scores, state = writer.read(vocabulary.numbers(text[read:typed]), state)
            read = typed
            begun = vocabulary.tokenizer.begun(text[:typed])
            if begun:
                found = writer._spell(begun, scores, state, SUGGESTIONS)
                if begun + text[typed:end] in [suggestion.text for suggestion in found]:
                    yield end - after, typed - after + 1
                    break
        else:
            yield end - after, end - after
        after = end


def _words(text: str) -> Iterator[Tuple[int, int]]:
    """Begin and end of each word: what :meth:`Writer.suggest` completes."""
    begin = None
    for at, character in enumerate(chain(text, [" "])):
        if in_word(character):
            begin = at if begin is None else begin
        elif begin is not None and character not in JOINERS:
            yield begin, begin + len(text[begin:at].rstrip(JOINERS))
            begin = None


def _of_words(writer: Writer, tokens: Sequence[str]) -> Iterator[Tuple[int, int]]:
    vocabulary, state = writer.vocabulary, None
    scores, _ = writer.read(np.array([vocabulary.start], np.int32))
    characters = keys = 0
    for token, text in zip(tokens, _texts(vocabulary.tokenizer, iter(tokens))):
        characters += len(text)
        keys += len(text)
        if any(map(in_word, token)) and token not in (UNKNOWN, END_OF_LINE):
            typed = _typed(writer, scores, token)
            if typed < len(token):
                keys -= len(token) - typed - 1
            yield characters, keys
            characters = keys = 0
        scores, state = writer.read(vocabulary.numbers([token]), state)


def _typed(writer: Writer, scores: np.ndarray, word: str) -> int:
    """How many characters of `word` are typed before it is suggested, or all."""
    vocabulary = writer.vocabulary
    if word not in vocabulary:
        return len(word)
    number = vocabulary.number(word)
    numbers = np.arange(len(scores))
    ahead = (scores > scores[number]) | ((scores == scores[number]) & (numbers < number))
    better = [vocabulary.tokens[i] for i in np.flatnonzero(ahead)]
    better = [token for token in better if token != UNKNOWN]
    if len(better) < SUGGESTIONS:
        return 0
    better = [token for token in better if token != END_OF_LINE]
    for typed in range(1, len(word)):
        better = [token for token in better if token.startswith(word[:typed])]
        if len(better) < SUGGESTIONS:
            return typed
    return len(word)
