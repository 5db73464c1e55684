"""Replaces personal data with placeholders.

What has a shape is found: addresses on the web and of mail, numbers, and the names of those who
write in a chat. Names of others, nicknames, streets and places are not.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from itertools import groupby
from typing import Dict, Iterable, Iterator, List, Match, Set

from fastrnn.lm.data.texts import Text, whole_lines
from fastrnn.lm.tokenizers import in_word

_GAP = r"[ \u00a0\u202f().\-/–]"
# Without those that are words, such as "it": a space after a full stop is often missing.
_ENDINGS = (
    "com|org|net|edu|gov|info|app|dev|io|tv|de|ch|uk|fr|nl|pl|ru|ua|tr|br|mx|cn|jp|kr|se|dk|cz|gr|ca"
    "|au|eu"
)
_REST = r"(?:\S*[\w/=&#-])?"  # not the comma after an address
_WEB = (
    rf"(?:\b[a-zA-Z]+://|\bwww\.){_REST}"
    rf"|(?<![\w@.])(?:[\w-]{{1,63}}\.){{1,20}}(?:[a-zA-Z]{{2,}}/{_REST}|(?:{_ENDINGS})\b(?:[?#:]{_REST})?)"
)
_IBAN = (
    r"\b[A-Z]{2}\d{2}(?: ?(?=[A-Z]*\d)[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b"
    r"|\b[A-Za-z]{2}\d{2}(?=[A-Za-z]*\d)[A-Za-z0-9]{11,30}\b"
)
# Kind, placeholder and shape; at one place the first wins. What may begin at each place of a long
# run has a length limit, that of addresses: without one, the search takes quadratic time.
_SHAPES = [
    ("e-mail addresses", "<email>", r"[\w.+%-]{1,64}@[\w-]+(?:\.[\w-]+)+"),
    ("web addresses", "<url>", _WEB),
    ("account numbers", "<iban>", _IBAN),
    ("phone numbers", "<phone>", rf"(?<!\w)(?:\+|\(?0){_GAP}{{0,2}}\d(?:{_GAP}{{0,3}}\d){{5,}}"),
    ("numbers", "<number>", r"\d(?:[.,' \u00a0\u202f/-]?\d){3,}"),
    ("names", "<name>", r"(?<![\w@])@[\w.]*\w"),
]
# What formats put where a name is missing.
_NO_NAMES = ("Me", "unknown")
_SHORT, _INITIALS = 2, 1


class Redactor:
    """Replaces what it finds, everything of one kind by the same placeholder.

    Parameters
    ----------
    names : iterable of str
        Of people. They are found whole and by their parts, in upper and lower case; parts of two
        letters, such as Li, only as they are written, and small words such as "de" not at all.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        anyhow: Set[str] = set()
        exactly: Set[str] = set()
        for name in set(names).difference(_NO_NAMES):
            (anyhow if len(name) > _SHORT else exactly).add(name)
            for part in _words(name):
                if len(part) > _INITIALS and not (part.islower() and part.isascii()):
                    (anyhow if len(part) > _SHORT else exactly).add(part)
        shapes = list(_SHAPES)
        shapes += [("names", "<name>", f"(?i:{_one_of(anyhow)})")] if anyhow else []
        shapes += [("names", "<name>", _one_of(exactly))] if exactly else []
        self._found = [(kind, sign) for kind, sign, _ in shapes]
        self._pattern = re.compile("|".join(f"({pattern})" for _, _, pattern in shapes))

    def __call__(self, text: str, counts: Dict[str, int]) -> str:
        """`text` with placeholders; `counts` says how many of each kind there are."""

        def sign(match: Match[str]) -> str:
            kind, sign = self._found[(match.lastindex or 0) - 1]
            counts[kind] = counts.get(kind, 0) + 1
            return sign

        return self._pattern.sub(sign, text)


class Redacted(Text):
    """A text with placeholders."""

    def __init__(self, source: Text, redactor: Redactor) -> None:
        super().__init__(source.name, lambda: [])
        self.nothing = source.nothing
        self.source = source
        self._redactor = redactor
        self._counts: Dict[str, int] = {}

    def parts(self) -> Iterator[str]:
        counts: Dict[str, int] = Counter()
        # Nothing that is replaced goes over the end of a line.
        for lines in whole_lines(self.source.parts()):
            yield self._redactor(lines, counts)
        self._counts = counts

    def reports(self) -> List[str]:
        self._measure()
        found = (f"{count:,} {kind}" for kind, count in sorted(self._counts.items()))
        said = ", ".join(found) or "nothing"
        lines = self.source.reports() or [f"{self.name}: text"]
        return [f"{line}; replaced {said}" for line in lines]


def _words(name: str) -> Iterator[str]:
    for inside, characters in groupby(name, in_word):
        word = "".join(characters)
        if inside and not word.isdecimal():
            yield word


def _one_of(names: Set[str]) -> str:
    """A pattern of words, the longest first; between words of some scripts there is no space."""
    forms = {unicodedata.normalize(form, name) for form in ("NFC", "NFD") for name in names}
    return "|".join(
        _edge(name[0], r"(?<!\w)")
        + re.escape(name).replace(r"\ ", r"\s")
        + _edge(name[-1], r"(?!\w)")
        for name in sorted(forms, key=lambda name: (-len(name), name))
    )


def _edge(character: str, boundary: str) -> str:
    wide = unicodedata.east_asian_width(character) in "WF"
    return "" if wide or not in_word(character) else boundary
