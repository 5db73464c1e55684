"""JSON lines: on each line an object with a field ``text``."""

from __future__ import annotations

import json
import re
from itertools import islice
from typing import Any, Dict, Iterable, Iterator, Tuple

from fastrnn.lm.data.chats.message import Item, LeftOut, MisfitError, item

TITLE = "JSON lines"
_SENDERS = ("from", "sender", "author", "user", "name")
_DATES = ("date", "timestamp", "created_at", "time")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_LOOKED_AT = 20


def objects(lines: Iterable[str]) -> Iterator[Tuple[int, str, Dict[str, Any]]]:
    """Number, line and object of each line that is not empty."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                found = None
            if not isinstance(found, dict):
                raise MisfitError(number, line)
            yield number, line, found


def first_objects(head: str) -> Iterator[Dict[str, Any]]:
    """The objects at the start of a text; none if it has something else."""
    lines = head.split("\n")
    try:
        # The last line may be cut off.
        found = [o for _, _, o in islice(objects(lines[:-1] or lines), _LOOKED_AT)]
    except MisfitError:
        return
    yield from found


def fits(head: str) -> bool:
    """Whether the first lines are objects, and one of them has a text."""
    return any(isinstance(o.get("text"), str) for o in first_objects(head))


def read(lines: Iterable[str]) -> Iterator[Item]:
    """The messages."""
    for number, line, found in objects(lines):
        if "text" not in found:
            raise MisfitError(number, line)
        if not isinstance(found["text"], str):
            yield LeftOut("messages without text")
            continue
        senders = (found[name] for name in _SENDERS if isinstance(found.get(name), str))
        days = (_DAY.match(str(found.get(name, ""))) for name in _DATES)
        day = next(filter(None, days), None)
        yield item(next(senders, ""), found["text"], day[0] if day else "")
