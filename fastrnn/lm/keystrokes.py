"""Keystrokes saved: the figure by which the keyboards of phones are compared.

A typist sees three suggestions above the keys, which are those of
:meth:`fastrnn.lm.generation.Writer.suggest`. Each character costs one key. As soon as the word is
among the suggestions, the typist takes it: one tap instead of the word's remaining characters. The
space after the word is not part of it, and costs a key as every sign does. A model of words
suggests a word before its first character, a model of characters from then on.
"""

from __future__ import annotations

import math
from itertools import chain, islice, tee
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np

from fastrnn.lm.config import Settings, noun
from fastrnn.lm.data.texts import Text
from fastrnn.lm.errors import InputError
from fastrnn.lm.evaluation import Scores, measure, perplexity, predicted
from fastrnn.lm.generation import Writer
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


def keystrokes(writer: Writer, tokens: Iterable[str], words: int) -> Keystrokes:
    """Count what it takes to type the first `words` words of a text, or all if it has fewer.

    Parameters
    ----------
    writer : Writer
    tokens : iterable of str
        As the model's tokenizer cuts them from a text.
    words : int
        Each takes a model of characters some dozens of steps.
    """
    if words < 1:
        raise InputError(f"keystrokes: got {words}, wanted at least 1")
    if writer.vocabulary.level == "character":
        counted = _of_characters(writer, _beginning(tokens, words))
    else:
        counted = _of_words(writer, tokens)
    total = Keystrokes(0, 0, 0)
    for characters, keys in islice(counted, words):
        total = Keystrokes(total.words + 1, total.characters + characters, total.keys + keys)
    return total


class Evaluation(NamedTuple):
    """All that ``fastrnn evaluate`` tells of a model.

    Attributes
    ----------
    settings : Settings
    scores : Scores
    characters : int
        Of the text that the scored tokens make.
    keystrokes : Keystrokes, optional
    """

    settings: Settings
    scores: Scores
    characters: int
    keystrokes: Optional[Keystrokes]

    @staticmethod
    def of(writer: Writer, numbers: np.ndarray, text: Text, begin: int, words: int) -> Evaluation:
        """Evaluate a model on the tokens of `text` from `begin` on, which `numbers` are.

        Keystrokes are counted in the first `words` words, or not at all for 0.
        """
        settings, vocabulary = writer.settings, writer.vocabulary
        unknown = vocabulary.number(UNKNOWN) if UNKNOWN in vocabulary else None
        scores = measure(writer.model, numbers, settings, writer.context, unknown)
        first, last = (begin + place for place in predicted(numbers, settings))
        characters = scores.tokens
        if vocabulary.level != "character":
            tokens = tokens_between(text, vocabulary.tokenizer, first, last)
            characters = count_characters(vocabulary.tokenizer, tokens)
        counted = None
        if words:
            tokens = tokens_between(text, vocabulary.tokenizer, begin, begin + len(numbers))
            counted = keystrokes(writer, tokens, words)
        return Evaluation(settings, scores, characters, counted)

    @property
    def bits_per_character(self) -> float:
        """All bits over all characters: models of words and of characters can be compared."""
        return self.scores.loss / math.log(2) * self.scores.tokens / self.characters

    def as_dict(self) -> Dict[str, Any]:
        """What ``--json`` prints."""
        scores, counted = self.scores, self.keystrokes
        return {
            "tokens": scores.tokens,
            "token": noun(self.settings),
            "characters": self.characters,
            "loss": scores.loss,
            "bits_per_character": self.bits_per_character,
            "perplexity": perplexity(scores.loss),
            "first_right": scores.first,
            "first_three_right": scores.first_three,
            "keystrokes": counted and {**counted._asdict(), "saved": counted.saved},
        }

    def lines(self) -> List[str]:
        """What it prints below the loss."""
        scores, token = self.scores, noun(self.settings)
        shown = [
            f"perplexity  {perplexity(scores.loss):.1f} per {token}; "
            f"{self.bits_per_character + 0.0:.3f} bits per character",
            f"suggestions {scores.first:.1%} of {token}s were the first one, "
            f"{scores.first_three:.1%} among the first {SUGGESTIONS}",
        ]
        counted = self.keystrokes
        if counted is not None and counted.saved is not None:
            shown.append(
                f"keystrokes  {counted.saved:.1%} saved by {SUGGESTIONS} suggestions: "
                f"{counted.keys:,} for the {counted.characters:,} characters of the first "
                f"{counted.words:,} words"
            )
        return shown


def tokens_between(text: Text, tokenizer: Tokenizer, first: int, last: int) -> Iterator[str]:
    """The tokens `first` to `last` (exclusive) of a text, also those no model knows."""
    place = 0
    for tokens in tokenizer.tokenize_pieces(text.pieces()):
        yield from tokens[max(0, first - place) : max(0, last - place)]
        place += len(tokens)
        if place >= last:
            return


def count_characters(tokenizer: Tokenizer, tokens: Iterable[str]) -> int:
    """How many characters the text has that `tokens` make."""
    return sum(map(len, _texts(tokenizer, tokens)))


def _texts(tokenizer: Tokenizer, tokens: Iterable[str]) -> Iterator[str]:
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


def _beginning(characters: Iterable[str], words: int) -> str:
    """A text up to so many words and what follows them: it may be much longer than that."""
    kept: List[str] = []
    inside = False
    for character in characters:
        begins = not inside and in_word(character)
        inside = in_word(character) or (inside and character in JOINERS)
        words -= begins
        if words < 0:
            break
        kept.append(character)
    return "".join(kept)


def _words(text: str) -> Iterator[Tuple[int, int]]:
    """Begin and end of each word: what :meth:`Writer.suggest` completes."""
    begin = None
    for at, character in enumerate(chain(text, [" "])):
        if in_word(character):
            begin = at if begin is None else begin
        elif begin is not None and character not in JOINERS:
            yield begin, begin + len(text[begin:at].rstrip(JOINERS))
            begin = None


def _of_words(writer: Writer, tokens: Iterable[str]) -> Iterator[Tuple[int, int]]:
    vocabulary, state = writer.vocabulary, None
    scores, _ = writer.read(np.array([vocabulary.start], np.int32))
    characters = keys = 0
    tokens, same = tee(tokens)
    for token, text in zip(tokens, _texts(vocabulary.tokenizer, same)):
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
