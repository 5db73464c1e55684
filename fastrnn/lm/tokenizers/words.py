"""Words: by Unicode's text segmentation, and by code point as older models cut them."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import chain, repeat
from typing import Any, Dict, Iterable, List, Tuple

from fastrnn.lm.errors import InputError
from fastrnn.lm.tokenizers.base import (
    BEGUN,
    END_OF_LINE,
    ENDINGS,
    WhitespaceTokenizer,
    last_piece,
    matched_end,
    typed,
)

_SPACES = re.compile(r"(\s+)")
# What `WordTokenizer` remembers: the tokens of this many words of at most so many characters.
_REMEMBERED, _SHORT = 1 << 16, 32


class WordTokenizer(WhitespaceTokenizer):
    """Words and signs, by Unicode's text segmentation (UAX 29).

    No token ends inside a grapheme cluster. A word keeps its marks, format controls and joiners,
    and so does any other sign, which is a token of its own. In scripts that set no spaces between
    words, each grapheme cluster is a token.

    Between words and ASCII signs there are the spaces that English has, whatever the text has.
    Beside any other token the text's own spaces are tokens: there the text comes back exactly.
    """

    level = "word"
    version = 2

    def cut(self, line: str) -> List[str]:
        rules = _rules()
        words = line.split()
        tokens: List[str] = []
        if line.isascii():  # no token keeps spaces
            for found, _, _ in map(rules.cut.__getitem__, words):
                tokens += found
            return tokens
        spaces: Iterable[str] = chain([""], repeat(" "))
        if " ".join(words) != line:
            parts = _SPACES.split(line)
            words, spaces = parts[::2], ["", *parts[1::2]]
        own = False  # whether the latest token keeps the spaces beside it
        for space, (found, first, last) in zip(spaces, map(rules.cut.__getitem__, words)):
            if (own or first) and space:
                tokens.append(space)
            tokens += found
            own = last
        return tokens

    def seam(self, text: str) -> int:
        found = _rules().seam.search(text)
        return found.end() if found else 0

    def detokenize(self, tokens: Iterable[str]) -> str:
        rules = _rules()
        text: List[str] = []
        glued = True  # whether no space comes before the next token
        for token in tokens:
            english = token != END_OF_LINE and rules.english.match(token)
            if english and not glued and not rules.closing.match(token):
                text.append(" ")
            text.append("\n" if token == END_OF_LINE else token)
            glued = not english or token[0] in "([{"
        return "".join(text)

    def begun(self, text: str) -> str:
        """The word being typed at the end of `text`; empty in scripts without spaces."""
        piece = last_piece(text)
        return matched_end(piece, piece, _rules().begun)


class CodePointTokenizer(WhitespaceTokenizer):
    """Words by code point: a mark, a joiner or a sign is a token each.

    The rule of models from before `WordTokenizer`. On ASCII text both do the same.
    """

    level = "word"
    # A marker such as <unk>, a word with its apostrophes and hyphens, an ending such as 's on its
    # own, or one sign of punctuation.
    _TOKEN = re.compile(rf"<\w+>|\w+(?:['’-]\w+)*|['’](?:{ENDINGS})\b|[^\w\s]")
    _NO_SPACE_BEFORE = re.compile(rf" (?=[.,;:!?)\]}}%]|['’](?:{ENDINGS})\b)")
    _NO_SPACE_AFTER = re.compile(r"(?<=[(\[{]) ")

    def cut(self, line: str) -> List[str]:
        return self._TOKEN.findall(line)

    def detokenize(self, tokens: Iterable[str]) -> str:
        text = super().detokenize(tokens)
        return self._NO_SPACE_AFTER.sub("", self._NO_SPACE_BEFORE.sub("", text))

    def begun(self, text: str) -> str:
        piece = last_piece(text)
        return matched_end(piece, piece, BEGUN)


class _Rules:
    """The patterns of `WordTokenizer`; `regex` knows characters' properties, `re` does not."""

    def __init__(self, regex: Any) -> None:
        # What UAX 29 takes to belong to the character after it, and before it.
        prefix = r"\p{GCB=Prepend}"
        mark = (
            r"[\p{WB=Extend}\p{WB=Format}\p{WB=ZWJ}\p{GCB=Extend}\p{GCB=SpacingMark}"
            rf"--{prefix}]"
        )
        # Scripts without spaces, and emoji.
        alone = (
            r"[\p{lb=SA}\p{ea=W}\p{ea=F}\p{Katakana}\p{WB=Katakana}\p{Tibetan}\p{Balinese}"
            r"\p{Javanese}\p{Extended_Pictographic}\p{RI}--\p{Hangul}--[\p{ea=F}&&\p{Alphanumeric}]]"
        )
        letter = rf"[\w\p{{N}}\p{{WB=ALetter}}--{prefix}--{mark}--{alone}]"
        within = rf"[{letter}{mark}]"
        # Beside English's: Catalan's and Hebrew's signs inside words, and Unicode's hyphens.
        joiner = r"""(?:['’\-‐‑־·‧״]|(?<=\p{Hebrew})"(?=\p{Hebrew}))"""
        ending = rf"['’](?:{ENDINGS})(?!{within})"
        space = r"[\s\x1c-\x1f]"
        word = rf"{letter}{within}*+"
        words = rf"<{word}>(?!{mark})|{word}(?:{joiner}{word})*+|{ending}"
        # Not \X: it counts back to where a row of flags begins, and its versions differ.
        emoji = rf"\p{{Extended_Pictographic}}{mark}*+"
        sign = rf"\p{{RI}}{{2}}{mark}*+|{emoji}(?:(?<=\u200d){emoji})*+|(?!{space}).{mark}*+"

        def compiled(pattern: str) -> Any:
            return regex.compile(pattern, regex.VERSION1 | regex.DOTALL)

        # No token holds a space and something else, nor looks at what is beyond a space.
        self.token = compiled(rf"{prefix}*(?:{words}|{mark}++|{sign})")
        self.cut = _Cut(self)
        self.english = compiled(rf"{prefix}*(?:{letter}|(?!{space})\p{{ASCII}}|{ending})")
        self.closing = compiled(rf"[.,;:!?)\]}}%]|{ending}")
        self.begun = compiled(typed(rf"{within}*{letter}{prefix}*", joiner))
        # Finds the last place after a line end, or after spaces that are not tokens.
        plain = rf"[{letter}[!-~]]"
        self.seam = compiled(rf"(?r)\n|(?<={plain}){space}+(?={plain})")


class _Cut(Dict[str, Tuple[List[str], bool, bool]]):
    """The tokens of what stands between spaces; whether first and last keep those spaces."""

    def __init__(self, rules: _Rules) -> None:
        super().__init__()
        self._rules = rules

    def __missing__(self, word: str) -> Tuple[List[str], bool, bool]:
        first = last = False
        if word.isascii():  # `re` is faster, and its rule the same
            tokens = CodePointTokenizer._TOKEN.findall(word)
        else:
            tokens = self._rules.token.findall(word)
            first, last = (self._rules.english.match(tokens[n]) is None for n in (0, -1))
        if len(self) >= _REMEMBERED:  # another thread may have added one, too
            self.clear()
        if len(word) <= _SHORT:
            self[word] = tokens, first, last
        return tokens, first, last


@lru_cache(maxsize=None)
def _rules() -> _Rules:
    try:
        import regex
    except ImportError:
        raise InputError(
            "level: words need the package regex, which is not installed: pip install 'fastrnn[lm]'"
        ) from None
    return _Rules(regex)
