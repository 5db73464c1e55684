"""Tokenizers: they cut a text into tokens, and make text of tokens.

A token is a character, a word or sign, or what stands between spaces. A model keeps the rule that
it was trained with, which `level` and `version` name.
"""

from __future__ import annotations

from typing import Optional

from fastrnn.lm.errors import InputError
from fastrnn.lm.tokenizers.base import (
    END_OF_LINE,
    JOINERS,
    LEVELS,
    UNKNOWN,
    CharacterTokenizer,
    Tokenizer,
    WhitespaceTokenizer,
    in_word,
    normalize,
)
from fastrnn.lm.tokenizers.words import CodePointTokenizer, WordTokenizer

__all__ = [
    "END_OF_LINE",
    "JOINERS",
    "LEVELS",
    "UNKNOWN",
    "CharacterTokenizer",
    "CodePointTokenizer",
    "Tokenizer",
    "WhitespaceTokenizer",
    "WordTokenizer",
    "in_word",
    "normalize",
    "tokenizer_for",
]


def tokenizer_for(level: str, version: Optional[int] = None) -> Tokenizer:
    """The tokenizer of a level, the newest without a version."""
    if level not in LEVELS:
        raise InputError(f"level: got {level!r}, wanted one of {', '.join(LEVELS)}")
    newest_first = (CharacterTokenizer, WordTokenizer, WhitespaceTokenizer, CodePointTokenizer)
    for kind in newest_first:
        if kind.level == level and version in (None, kind.version):
            return kind()
    raise InputError(f"vocabulary: version {version} of level {level!r} is of a newer fastrnn")
