"""What all formats of chats have in common."""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Iterable, Iterator, NamedTuple, Set, Tuple, Union

from fastrnn.lm.errors import InputError

# Marks of direction, which apps put beside names and texts, and the byte order mark.
MARKS = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff"
_BREAKS = re.compile(r"(?<![ \t])[ \t]*[\n\x0b\x0c\r\x85\u2028\u2029]+[ \t]*")
_SURROGATES = re.compile("[\ud800-\udfff]")


class Message(NamedTuple):
    """What one person wrote; `date` is a day as the format has it, or nothing."""

    sender: str
    text: str
    date: str = ""


class LeftOut(NamedTuple):
    """Something that is not a message; `kind` is a plural such as ``system lines``."""

    kind: str


Item = Union[Message, LeftOut]


class MisfitError(InputError):
    """A line that is not of the format."""

    def __init__(self, number: int, line: str) -> None:
        shown = line if len(line) <= 60 else line[:59] + "…"
        super().__init__(f"line {number:,} does not fit: {shown!r}")


def whole_json(lines: Iterable[str]) -> Any:
    """The value that all lines together are in JSON."""
    text = "\n".join(lines)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise MisfitError(error.lineno, text.split("\n")[error.lineno - 1]) from None
    except RecursionError:
        raise MisfitError(1, text.split("\n")[0]) from None


class Format(NamedTuple):
    """How one app writes its chats down.

    Attributes
    ----------
    title : str
        The app's name.
    fits : callable
        Whether a text that begins so is of this format.
    read : callable
        The messages of a chat from its lines; raises `MisfitError`.
    span : callable
        The first and the last of several dates, as YYYY-MM-DD.
    """

    title: str
    fits: Callable[[str], bool]
    read: Callable[[Iterable[str]], Iterator[Item]]
    span: Callable[[Set[str]], Tuple[str, str]]


def item(sender: Any, text: str, date: str = "") -> Item:
    """A message as one line of text, whatever line breaks it has, or what is left out of it."""
    line = _BREAKS.sub(" ", _SURROGATES.sub("\ufffd", text)).strip(MARKS + " \t\n")
    if not line:
        return LeftOut("messages without text")
    return Message(tidy_name(sender), line, date)


def tidy_name(name: Any) -> str:
    """A sender's name; apps have none for deleted accounts."""
    return " ".join(str(name or "").strip(MARKS + "~").split()) or "unknown"


def span(dates: Set[str]) -> Tuple[str, str]:
    """The first and last of dates that are written as YYYY-MM-DD."""
    return min(dates), max(dates)
