"""Vocabularies: the numbers of tokens."""

from __future__ import annotations

import json
import sys
from collections import Counter
from itertools import repeat
from pathlib import Path
from typing import Dict, Iterable, Sequence, Sized, Union

import numpy as np

from fastrnn.lm.errors import InputError, UnknownCharacterError
from fastrnn.lm.files import explained, write_atomically
from fastrnn.lm.tokenizers import END_OF_LINE, UNKNOWN, Tokenizer, normalize, tokenizer_for


class Vocabulary:
    """The tokens a model knows, numbered from 0 without gaps. Numbers are int32.

    Parameters
    ----------
    tokens : sequence of str
        Every token once; its position is its number.
    tokenizer : Tokenizer
        What cuts texts into such tokens. Unknown tokens get the number of the marker for them; a
        vocabulary of characters may be without one, and an unknown character is then an error.

    Raises
    ------
    InputError
        If `tokens` is empty, holds a token twice, or is not what the tokenizer gives.
    """

    def __init__(self, tokens: Sequence[str], tokenizer: Tokenizer) -> None:
        self.tokens = tuple(tokens)
        self.tokenizer = tokenizer
        self._number = {token: number for number, token in enumerate(self.tokens)}
        if not self.tokens:
            raise InputError("vocabulary: got no tokens, wanted at least one")
        if len(self._number) != len(self.tokens):
            twice = next(t for t, count in Counter(self.tokens).items() if count > 1)
            raise InputError(f"vocabulary: the token {twice!r} is there more than once")
        for marker in tokenizer.markers:
            if marker not in self._number:
                raise InputError(f"vocabulary: level {self.level!r} needs the token {marker}")
        if self.level == "character":
            characters = [token for token in self.tokens if token != UNKNOWN]
            long = [token for token in characters if len(token) != 1]
            if long:
                raise InputError(f"vocabulary: {long[0]!r} is not one character")
            codes = _code_points(characters)
            highest = int(codes.max()) if characters else 0
            unknown = self._number.get(UNKNOWN, -1)
            # The last entry is for all other codes.
            self._number_of_code = np.full(highest + 2, unknown, np.int32)
            self._number_of_code[codes] = [self._number[token] for token in characters]

    @staticmethod
    def build(tokens: Iterable[str], tokenizer: Tokenizer, min_count: int = 1) -> Vocabulary:
        """The vocabulary of a text, from its tokens or from a Counter of them.

        Tokens seen less often than `min_count` are unknown. Characters are in the order of their
        code points, before the marker for unknown ones, which is there if `min_count` is more than
        1. Words are the most frequent first, in alphabetical order where that is equal, so that the
        same text gives the same numbers everywhere.
        """
        if tokenizer.level == "character" and min_count == 1:
            return Vocabulary(sorted(set(tokens)), tokenizer)
        counts = Counter(tokens)
        if tokenizer.level == "character":
            frequent = (token for token, count in counts.items() if count >= min_count)
            return Vocabulary([*sorted(frequent), UNKNOWN], tokenizer)
        for marker in tokenizer.markers:
            counts[marker] += min_count
        kept = [token for token, count in counts.items() if count >= min_count]
        return Vocabulary(sorted(kept, key=lambda token: (-counts[token], token)), tokenizer)

    @property
    def level(self) -> str:
        """What a token is: a character, a word, or what stands between spaces."""
        return self.tokenizer.level

    def __len__(self) -> int:
        return len(self.tokens)

    def __contains__(self, token: object) -> bool:
        return token in self._number

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocabulary):
            return NotImplemented
        return self.tokenizer == other.tokenizer and self.tokens == other.tokens

    def __hash__(self) -> int:
        return hash((self.tokenizer, self.tokens))

    def number(self, token: str) -> int:
        """The number of one token the vocabulary has."""
        return self._number[token]

    def numbers(self, tokens: Sequence[str], before: int = 0) -> np.ndarray:
        """The numbers of `tokens`, shape (len(tokens),), int32; errors count those `before`."""
        if self.level == "character":
            return self._numbers_of_characters(tokens, before)
        numbers = map(self._number.get, tokens, repeat(self._number[UNKNOWN]))
        return np.fromiter(numbers, np.int32, len(tokens))

    def _numbers_of_characters(self, text: Sequence[str], before: int) -> np.ndarray:
        codes = _code_points(text)
        numbers = self._number_of_code[codes.clip(max=len(self._number_of_code) - 1)]
        unknown = np.flatnonzero(numbers < 0)
        if len(unknown):
            at = int(unknown[0])
            raise UnknownCharacterError(
                f"the character {text[at]!r} (U+{ord(text[at]):04X}) at position {before + at} "
                f"is not among the {len(self)} characters the model knows"
            )
        return numbers

    def encode(self, text: str) -> np.ndarray:
        """The numbers of the tokens of `text`, normalized, shape (tokens,), int32."""
        return self.numbers(self.tokenizer.tokenize(normalize(text)))

    def decode(self, numbers: Iterable[int]) -> str:
        """The text that `numbers` stand for."""
        return self.tokenizer.detokenize(self.tokens[int(number)] for number in numbers)

    def unknown(self, numbers: np.ndarray) -> int:
        """How many of `numbers` stand for unknown tokens."""
        return int(np.count_nonzero(numbers == self._number.get(UNKNOWN, -1)))

    @property
    def start(self) -> int:
        """The token an empty prompt stands for: the end of a line, or else a space, or token 0."""
        return next((self._number[t] for t in (END_OF_LINE, "\n", " ") if t in self._number), 0)

    def to_json(self) -> str:
        """The vocabulary as JSON text: the tokenizer's level and version, and the tokens."""
        fields = {"level": self.level, "version": self.tokenizer.version, "tokens": self.tokens}
        return json.dumps(fields, ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> Vocabulary:
        """The vocabulary that :meth:`to_json` wrote."""
        try:
            fields = json.loads(text)
            level, tokens = fields["level"], fields["tokens"]
            version = fields.get("version", 1)  # none was written before there were two
            strings = type(tokens) is list and {type(t) for t in (level, *tokens)} == {str}
        except (ValueError, KeyError, TypeError, RecursionError):
            strings = False
        if not strings or type(version) is not int:
            raise InputError('vocabulary: wanted JSON with "level" and "tokens", a list of strings')
        return Vocabulary(tokens, tokenizer_for(level, version))

    def save(self, path: Union[str, Path]) -> None:
        """Write :meth:`to_json` to `path`, whole or not at all."""
        write_atomically(Path(path), self.to_json().encode("utf-8"))

    @staticmethod
    def load(path: Union[str, Path]) -> Vocabulary:
        """Read a vocabulary that :meth:`save` wrote; InputError names the file if that fails."""
        with explained(f"{path}: cannot be read"):
            content = Path(path).read_bytes()
        try:
            return Vocabulary.from_json(content.decode("utf-8"))
        except (InputError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: {error}") from None


class Appearances(Dict[str, int]):
    """Numbers tokens in the order in which they appear, without knowing them before."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        # Of characters by code point; a dictionary is slower.
        characters = tokenizer.level == "character"
        self._number_of_code = np.full(sys.maxunicode + 1, -1, np.int32) if characters else None

    def __missing__(self, token: str) -> int:
        number = self[token] = len(self)
        return number

    def numbers(self, tokens: Sequence[str]) -> np.ndarray:
        """The numbers of `tokens`, in the smallest type for the tokens so far."""
        table = self._number_of_code
        if table is None:
            numbers = np.fromiter(map(self.__getitem__, tokens), np.uint32, len(tokens))
        else:
            codes = _code_points(tokens)
            for code in np.unique(codes[table[codes] < 0]):
                table[code] = self[chr(code)]
            numbers = table[codes]
        return numbers.astype(smallest(self))


def smallest(tokens: Sized) -> np.dtype:
    """The smallest unsigned type for numbers of `tokens`."""
    return np.min_scalar_type(max(len(tokens) - 1, 0)).newbyteorder("<")


def _code_points(characters: Sequence[str]) -> np.ndarray:
    text = characters if isinstance(characters, str) else "".join(characters)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
