"""What all tokenizers have in common, and those that need no rule for words."""

from __future__ import annotations

import re
import unicodedata
from abc import ABC, abstractmethod
from typing import Any, Iterable, Iterator, List, Sequence, Tuple

UNKNOWN = "<unk>"
END_OF_LINE = "<eos>"
LEVELS = ("character", "word", "whitespace")
# What can stand inside a word but not end it, at every level.
JOINERS = "'’-"
# What an apostrophe makes of the end of an English word.
ENDINGS = "s|t|re|ve|ll|d|m"


def normalize(text: str) -> str:
    """`text` without byte order marks at its start, and with line feeds for all line ends."""
    return text.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def in_word(character: str) -> bool:
    """Whether a character can stand in a word: letters, digits, marks and format controls."""
    if character.isalnum() or character == "_":
        return True
    category = unicodedata.category(character)
    return category[0] == "M" or (category == "Cf" and character != "\u200b")


class Tokenizer(ABC):
    """How texts are cut.

    Attributes
    ----------
    level : str
        What a token is, one of `LEVELS`.
    version : int
        Of the rule.
    markers : tuple of str
        Tokens that stand for something else, which every vocabulary has to have.
    """

    level = ""
    version = 1
    markers: Tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))

    @abstractmethod
    def tokenize(self, text: str) -> Sequence[str]:
        """Cut `text` into tokens."""

    @abstractmethod
    def seam(self, text: str) -> int:
        """The last position at which `text` falls into two texts with the same tokens, or 0."""

    def tokenize_pieces(self, pieces: Iterable[str]) -> Iterator[Sequence[str]]:
        """Cut a text that comes in pieces; the tokens are those of the whole text."""
        waiting: List[str] = []
        length = wanted = 0
        for piece in pieces:
            waiting.append(piece)
            length += len(piece)
            # What has no seam is looked through again only when it is twice as long.
            if length >= wanted:
                text = "".join(waiting)
                seam = self.seam(text)
                yield self.tokenize(text[:seam])
                waiting = [text[seam:]]
                length = len(waiting[0])
                wanted = 2 * length
        yield self.tokenize("".join(waiting))

    @abstractmethod
    def detokenize(self, tokens: Iterable[str]) -> str:
        """The text that `tokens` make."""

    @abstractmethod
    def begun(self, text: str) -> str:
        """The word being typed at the end of `text`; empty after a space or sign."""


class CharacterTokenizer(Tokenizer):
    """Every character is a token."""

    level = "character"

    def tokenize(self, text: str) -> str:
        return text

    def seam(self, text: str) -> int:
        return len(text)

    def detokenize(self, tokens: Iterable[str]) -> str:
        return "".join(tokens)

    def begun(self, text: str) -> str:
        # Needs no `regex`: to `re` a mark is not part of a word, but an underscore is.
        piece = last_piece(text)
        shape = "".join("_" if in_word(c) and not c.isalnum() else c for c in piece)
        return matched_end(piece, shape, BEGUN)


class WhitespaceTokenizer(Tokenizer):
    """What stands between spaces, for corpora that come tokenized, such as the Penn Treebank."""

    level = "whitespace"
    markers = (UNKNOWN, END_OF_LINE)

    def tokenize(self, text: str) -> List[str]:
        tokens: List[str] = []
        lines = text.split("\n")
        for line in lines[:-1]:
            tokens += self.cut(line)
            tokens.append(END_OF_LINE)
        return tokens + self.cut(lines[-1])

    def seam(self, text: str) -> int:
        return len(text) - len(last_piece(text))

    def cut(self, line: str) -> List[str]:
        """Cut one line into tokens."""
        return line.split()

    def detokenize(self, tokens: Iterable[str]) -> str:
        lines = " ".join(tokens).split(END_OF_LINE)
        return "\n".join(line.strip() for line in lines)

    def begun(self, text: str) -> str:
        return last_piece(text)


def last_piece(text: str) -> str:
    """What stands after the last space."""
    return "" if not text or text[-1].isspace() else text.rsplit(None, 1)[-1]


def matched_end(piece: str, shape: str, pattern: Any) -> str:
    """The end of `piece` where `pattern` matches `shape`, of the same length, read backwards."""
    # A search from the start would try every beginning of a long word.
    found = pattern.match(shape[::-1])
    return piece[len(piece) - found.end() :] if found else ""


def typed(word: str, joiner: str) -> str:
    """The pattern of a word or ending that is being typed, for text that is read backwards."""
    endings = "|".join(ending[::-1] for ending in ENDINGS.split("|"))
    return rf"(?:{endings})['’](?!{word})|['’-]?{word}(?:{joiner}{word})*"


BEGUN = re.compile(typed(r"\w+", "['’-]"))
