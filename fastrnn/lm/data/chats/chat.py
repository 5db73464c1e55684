"""A chat as a text."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from typing import Dict, Iterable, Iterator, List, NamedTuple, Optional, Set

from fastrnn.lm.data.chats.message import Format, Item, Message, MisfitError
from fastrnn.lm.data.texts import Text, whole_lines
from fastrnn.lm.errors import InputError

# Messages in a piece of text.
_AT_ONCE = 2000


class Survey(NamedTuple):
    """What a chat consists of: messages by sender, what is left out by kind, and the days."""

    senders: Dict[str, int]
    left_out: Dict[str, int]
    dates: Set[str]

    @property
    def messages(self) -> int:
        """How many there are, of all senders."""
        return sum(self.senders.values())


class Chat(Text):
    """The messages of a chat, each a line.

    The file is read anew each time. How much of it is in memory is the format's concern.

    Parameters
    ----------
    source : Text
        What was exported.
    form : Format
    recognized : bool
        Whether the format was recognized rather than given.

    Attributes
    ----------
    kept : set of str, optional
        The senders whose messages count; those of all by default.
    """

    nothing = "there is no message with text"

    def __init__(self, source: Text, form: Format, recognized: bool = False) -> None:
        super().__init__(source.name, lambda: [])
        self.form = form
        self.kept: Optional[Set[str]] = None
        self._source = source
        self._hint = "; --format text reads it as it is" if recognized else ""

    def _items(self) -> Iterator[Item]:
        try:
            yield from self.form.read(_lines(self._source.parts()))
        except MisfitError as error:
            what = f"{self.name}: cannot be read as {self.form.title}: {error}{self._hint}"
            raise InputError(what) from None

    @cached_property
    def survey(self) -> Survey:
        """What the file has, whatever is kept of it."""
        senders: Dict[str, int] = Counter()
        left_out: Dict[str, int] = Counter()
        dates: Set[str] = set()
        for item in self._items():
            if isinstance(item, Message):
                senders[item.sender] += 1
                dates.add(item.date)
            else:
                left_out[item.kind] += 1
        return Survey(senders, left_out, dates - {""})

    def parts(self) -> Iterator[str]:
        lines: List[str] = []
        for item in self._items():
            if isinstance(item, Message) and (self.kept is None or item.sender in self.kept):
                lines.append(item.text + "\n")
                if len(lines) == _AT_ONCE:
                    yield "".join(lines)
                    lines = []
        if lines:
            yield "".join(lines)

    def reports(self) -> List[str]:
        found = self.survey
        people = "1 person" if len(found.senders) == 1 else f"{len(found.senders):,} people"
        messages = "1 message" if found.messages == 1 else f"{found.messages:,} messages"
        line = f"{self.name}: {self.form.title}, {messages} of {people}"
        if self.kept is not None:
            own = sum(found.senders.get(name, 0) for name in self.kept)
            line += f", {own:,} of them of {', '.join(sorted(self.kept))}"
        if found.left_out:
            left = (f"{count:,} {kind}" for kind, count in sorted(found.left_out.items()))
            line += f"; left out {', '.join(left)}"
        return [line]


def _lines(pieces: Iterable[str]) -> Iterator[str]:
    """The lines of a text in pieces, without their ends."""
    for piece in whole_lines(pieces):
        yield from (piece[:-1] if piece.endswith("\n") else piece).split("\n")
