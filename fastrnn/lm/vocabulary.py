"""Vocabularies: the tokens of a text, and their numbers, which are int32."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple, Type, Union

import numpy as np

from fastrnn.lm.errors import InputError
from fastrnn.lm.files import describe, write_atomically
from fastrnn.lm.segmentation import (
    END_OF_LINE,
    UNKNOWN,
    CodePoints,
    Graphemes,
    begun_characters,
    join_with_spaces,
    last_piece,
    normalize,
)

LEVELS = ("character", "word", "whitespace")


class Vocabulary(ABC):
    """The tokens a model knows, numbered from 0 without gaps.

    Parameters
    ----------
    tokens : sequence of str
        Every token once; its position is its number.

    Raises
    ------
    InputError
        If `tokens` is empty or holds a token twice.

    Attributes
    ----------
    level : str
    version : int
        Of the rule that cuts texts; a model keeps the one it was trained with.
    """

    level = ""
    version = 1

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens = tuple(tokens)
        self._number = {token: number for number, token in enumerate(self.tokens)}
        if not self.tokens:
            raise InputError("vocabulary: got no tokens, wanted at least one")
        if len(self._number) != len(self.tokens):
            twice = next(t for t, count in Counter(self.tokens).items() if count > 1)
            raise InputError(f"vocabulary: the token {twice!r} is there more than once")

    def __len__(self) -> int:
        return len(self.tokens)

    def __contains__(self, token: object) -> bool:
        return token in self._number

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocabulary):
            return NotImplemented
        return type(self) is type(other) and self.tokens == other.tokens

    def __hash__(self) -> int:
        return hash((type(self), self.tokens))

    def number(self, token: str) -> int:
        """The number of one token the vocabulary has."""
        return self._number[token]

    @classmethod
    @abstractmethod
    def build(cls, tokens: Iterable[str], min_count: int = 1) -> Vocabulary:
        """The vocabulary of a text that is cut into `tokens`."""

    @classmethod
    @abstractmethod
    def tokenize(cls, text: str) -> Sequence[str]:
        """Cut `text` into tokens, known or not."""

    @abstractmethod
    def numbers(self, tokens: Sequence[str]) -> np.ndarray:
        """Numbers of `tokens`, shape (len(tokens),), int32; unknown ones as the level says."""

    @classmethod
    @abstractmethod
    def join(cls, tokens: Iterable[str]) -> str:
        """The text that `tokens` make."""

    def normalize(self, text: str) -> str:
        """`text` as the model knows texts, with line feeds and without a byte order mark.

        A vocabulary that has a carriage return is of a text that was not normalized.
        """
        return text if "\r" in self else normalize(text)

    def encode(self, text: str) -> np.ndarray:
        """Numbers of the tokens of `text`, normalized, shape (tokens,), int32."""
        return self.numbers(self.tokenize(self.normalize(text)))

    def decode(self, numbers: Iterable[int]) -> str:
        """The text that `numbers` stand for."""
        return self.join(self.tokens[int(number)] for number in numbers)

    @property
    def start(self) -> int:
        """The token an empty prompt stands for: the end of a line, or else a space, or token 0."""
        for token in (END_OF_LINE, "\n", " "):
            if token in self._number:
                return self._number[token]
        return 0

    @classmethod
    def begun(cls, text: str) -> str:
        """The word being typed at the end of `text`; empty after a space or sign."""
        return begun_characters(text)

    def to_json(self) -> str:
        """The vocabulary as JSON text: its level, its version and its tokens in order."""
        fields = {"level": self.level, "version": self.version, "tokens": self.tokens}
        return json.dumps(fields, ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> Vocabulary:
        """The vocabulary that :meth:`to_json` wrote."""
        try:
            fields = json.loads(text)
            level, tokens = fields["level"], fields["tokens"]
            version = fields.get("version", 1)  # none was written before there were two
            if type(version) is not int:
                raise TypeError
            if type(tokens) is not list or {type(text) for text in (level, *tokens)} != {str}:
                raise TypeError
        except (ValueError, KeyError, TypeError, RecursionError):
            raise InputError(
                'vocabulary: wanted JSON with "level" and "tokens", a list of strings'
            ) from None
        return vocabulary_class(level, version)(tokens)

    def save(self, path: Union[str, Path]) -> None:
        """Write :meth:`to_json` to `path`, whole or not at all."""
        write_atomically(Path(path), self.to_json().encode("utf-8"))

    @staticmethod
    def load(path: Union[str, Path]) -> Vocabulary:
        """Read a vocabulary that :meth:`save` wrote; InputError names the file if that fails."""
        try:
            return Vocabulary.from_json(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {describe(error)}") from None
        except (InputError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: {error}") from None


class CharacterVocabulary(Vocabulary):
    """Characters. There is no unknown character: encoding one is an error that shows it."""

    level = "character"

    def __init__(self, tokens: Sequence[str]) -> None:
        super().__init__(tokens)
        long = [token for token in self.tokens if len(token) != 1]
        if long:
            raise InputError(f"vocabulary: {long[0]!r} is not one character")
        codes = _code_points("".join(self.tokens))
        self._order = np.argsort(codes)
        self._codes = codes[self._order]

    @classmethod
    def build(cls, tokens: Iterable[str], min_count: int = 1) -> CharacterVocabulary:
        """The characters seen, in the order of their code points. None is too rare."""
        return cls(sorted(set(tokens)))

    @classmethod
    def tokenize(cls, text: str) -> Sequence[str]:
        return text

    @classmethod
    def join(cls, tokens: Iterable[str]) -> str:
        return "".join(tokens)

    def numbers(self, tokens: Sequence[str]) -> np.ndarray:
        text = "".join(tokens)
        codes = _code_points(text)
        place = np.searchsorted(self._codes, codes).clip(max=len(self) - 1)
        unknown = np.flatnonzero(self._codes[place] != codes)
        if len(unknown):
            at = int(unknown[0])
            raise InputError(
                f"the character {text[at]!r} (U+{ord(text[at]):04X}) at position {at} "
                f"is not among the {len(self)} characters the model knows"
            )
        return self._order[place].astype(np.int32)


class WordVocabulary(Vocabulary):
    """Words and punctuation signs, the end of a line, and one token for every unknown word."""

    level = "word"
    version = 2
    _rules: Any = Graphemes  # where words begin and end, and where spaces go between them

    def __init__(self, tokens: Sequence[str]) -> None:
        super().__init__(tokens)
        for marker in (UNKNOWN, END_OF_LINE):
            if marker not in self._number:
                raise InputError(f"vocabulary: a word vocabulary needs the token {marker}")

    @classmethod
    def build(cls, tokens: Iterable[str], min_count: int = 1) -> WordVocabulary:
        """The tokens seen at least `min_count` times, the most frequent first.

        The markers for unknown words and the end of a line are always there. Ties are in
        alphabetical order, so that the same text gives the same numbers everywhere.
        """
        counts = Counter(tokens)
        counts[UNKNOWN] += min_count
        counts[END_OF_LINE] += min_count
        kept = [token for token, count in counts.items() if count >= min_count]
        return cls(sorted(kept, key=lambda token: (-counts[token], token)))

    @classmethod
    def cut(cls, line: str) -> List[str]:
        """Cut one line into words and punctuation signs."""
        return cls._rules.cut(line)

    @classmethod
    def tokenize(cls, text: str) -> List[str]:
        """Cut `text` into tokens; every line break becomes the end-of-line token."""
        tokens: List[str] = []
        lines = text.split("\n")
        for line in lines[:-1]:
            tokens += cls.cut(line)
            tokens.append(END_OF_LINE)
        return tokens + cls.cut(lines[-1])

    def numbers(self, tokens: Sequence[str]) -> np.ndarray:
        unknown = self._number[UNKNOWN]
        return np.array([self._number.get(token, unknown) for token in tokens], np.int32)

    @classmethod
    def join(cls, tokens: Iterable[str]) -> str:
        """Text from tokens, with spaces where English has them."""
        return cls._rules.join(tokens)

    @classmethod
    def begun(cls, text: str) -> str:
        return cls._rules.begun(text)


class CodePointWordVocabulary(WordVocabulary):
    """Words as models cut them that were trained before words followed Unicode."""

    version = 1
    _rules = CodePoints


class WhitespaceVocabulary(WordVocabulary):
    """What stands between spaces, for corpora that come tokenized, such as the Penn Treebank."""

    level = "whitespace"
    version = 1

    @classmethod
    def cut(cls, line: str) -> List[str]:
        return line.split()

    @classmethod
    def begun(cls, text: str) -> str:
        """What stands after the last space."""
        return last_piece(text)

    @classmethod
    def join(cls, tokens: Iterable[str]) -> str:
        return join_with_spaces(tokens)


def vocabulary_class(level: str, version: Optional[int] = None) -> Type[Vocabulary]:
    """The class for a level, the newest without a version; InputError for an unknown one."""
    newest = (CharacterVocabulary, WordVocabulary, WhitespaceVocabulary)
    classes: Dict[Tuple[str, Optional[int]], Type[Vocabulary]] = {
        **{(c.level, None): c for c in newest},
        **{(c.level, c.version): c for c in (*newest, CodePointWordVocabulary)},
    }
    if (level, None) not in classes:
        raise InputError(f"level: got {level!r}, wanted one of {', '.join(LEVELS)}")
    if (level, version) not in classes:
        raise InputError(f"vocabulary: version {version} of level {level!r} is of a newer fastrnn")
    return classes[level, version]


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
