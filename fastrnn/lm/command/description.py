"""What texts consist of: ``fastrnn data``. Nothing here needs MXNet."""

from __future__ import annotations

import argparse
import shlex
import unicodedata
from collections import Counter
from typing import Dict, Iterator, List, NamedTuple, Tuple

from fastrnn.lm.command.sizes import sizes_for
from fastrnn.lm.data import (
    BUILTIN,
    SOURCES,
    Reading,
    builtin_text,
    named_path,
    open_text,
    places,
    title,
)
from fastrnn.lm.data.chats import Chat, Redacted
from fastrnn.lm.data.languages import LanguageCounter
from fastrnn.lm.data.texts import Text, whole_lines

# Characters that are seen less often hardly teach a model anything.
_RARE = 3
_PEOPLE, _SCRIPTS = 10, 6
# How Unicode's names of letters begin, where that is not the script.
_SCRIPT_NAMES = {"Cjk": "Han", "Fullwidth": "Latin", "Halfwidth": "Katakana"}


class Contents(NamedTuple):
    """What a text consists of; `characters` says how often each is there."""

    characters: Dict[str, int]
    words: int
    lines: int
    longest: int
    languages: List[Tuple[str, float]]


def contents(text: Text) -> Contents:
    """Read a text, and count."""
    characters: Dict[str, int] = Counter()
    words = lines = longest = 0
    languages = LanguageCounter()
    for piece in whole_lines(text.pieces()):
        characters.update(piece)  # type: ignore[arg-type]
        words += len(piece.split())
        languages.add(piece)
        found = piece.split("\n")
        found = found[:-1] if not found[-1] else found
        lines += len(found)
        longest = max(longest, *map(len, found))
    return Contents(characters, words, lines, longest, languages.shares())


def scripts(characters: Dict[str, int]) -> List[Tuple[str, float]]:
    """The scripts of the letters, and symbols such as emoji, with their shares."""
    found: Dict[str, int] = Counter()
    for character, count in characters.items():
        if character.isalpha():
            name = unicodedata.name(character, "other").split()[0].capitalize()
            found[_SCRIPT_NAMES.get(name, name)] += count
        elif unicodedata.category(character) == "So":
            found["emoji and symbols"] += count
    total = sum(found.values())
    shares = sorted(((name, count / total) for name, count in found.items()), key=lambda s: -s[1])
    return shares[:_SCRIPTS]


def describe(options: argparse.Namespace) -> None:
    """``fastrnn data``."""
    if not options.texts:
        for name in (BUILTIN, *SOURCES):
            print(f"{name:16} {_place(name)}")
        return
    reading = Reading(options.encoding, options.format or "auto", options.sender, options.redact)
    for file in places.find(places.together(options.texts)).files:
        text = open_text(file, reading)
        print(title(file))
        for name, value in _rows(text, file):
            print(f"  {name:11} {value}")


def _place(name: str) -> str:
    if name == BUILTIN:
        return f"comes with Python: {len(builtin_text()):,} characters"
    path = named_path(name)
    if path.exists():
        return str(path)
    return f"would be downloaded from {SOURCES[name].url} to {path}"


def _rows(text: Text, file: str) -> Iterator[Tuple[str, str]]:
    chat = text.source if isinstance(text, Redacted) else text
    found = contents(text)
    for line in text.reports():
        yield "read", line[len(text.name) + 2 :]
    if isinstance(chat, Chat):
        senders = sorted(chat.survey.senders.items(), key=lambda sender: (-sender[1], sender[0]))
        shown = ", ".join(f"{name} {count:,}" for name, count in senders[:_PEOPLE])
        more = len(senders) - _PEOPLE
        yield "people", f"{shown}, and {more:,} more" if more > 0 else shown
        if chat.survey.dates:
            yield "dates", " to ".join(chat.form.span(chat.survey.dates))
    total = sum(found.characters.values())
    rare = sum(count < _RARE for count in found.characters.values())
    yield "characters", f"{total:,}, {len(found.characters):,} different"
    if rare:
        yield "rare", f"{rare:,} characters appear fewer than {_RARE} times"
    yield "words", f"{found.words:,}"
    yield "lines", f"{found.lines:,}, the longest of {found.longest:,} characters"
    shares = ", ".join(f"{name} {share:.1%}" for name, share in scripts(found.characters))
    if shares:
        yield "scripts", shares
    shares = ", ".join(f"{name} {share:.0%}" for name, share in found.languages)
    if shares:
        yield "languages", f"{shares}, by common words"
    fitting = sizes_for(total)[0]
    flags = [
        f"--{name} {fitting[name]:g}" for name in ("hidden", "batch", "steps", "rate", "dropout")
    ]
    flags += [f"--min-count {_RARE}"] if rare else []
    yield "fits", f"fastrnn train --data {shlex.quote(file)} {' '.join(flags)}"
