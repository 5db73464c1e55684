"""Signal: what its desktop app and the common tools export as JSON.

The app's own export has JSON lines with recipients and messages (``chatItem``); ``signal-cli`` has
an ``envelope`` on each line; ``signal-export`` has ``sender`` and ``body`` on each; ``sigtop`` has
the rows of the desktop's database, as one list.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from itertools import chain
from typing import Any, Dict, Iterable, Iterator, Optional

from fastrnn.lm.data.chats import jsonl
from fastrnn.lm.data.chats.message import Item, LeftOut, MisfitError, item, whole_json

TITLE = "Signal"
_NOTICES = LeftOut("notices")
# Of the app's own export, the frames that are not messages.
_FRAMES = ("version", "account", "recipient", "chat", "chatFolder", "stickerPack", "adHocCall",
           "notificationProfile")  # fmt: skip


def fits(head: str) -> bool:
    """Whether it begins with an object that only Signal has."""
    if head.lstrip().startswith("["):
        begin = head.find("{")
        return begin >= 0 and '"body"' in head and '"sent_at"' in head
    return any(map(_is_signal, jsonl.first_objects(head)))


def _is_signal(found: Dict[str, Any]) -> bool:
    return (
        isinstance(found.get("envelope"), dict)
        or isinstance(found.get("chatItem"), dict)
        or {"sender", "body"} <= set(found)
        or {"type", "body", "sent_at"} <= set(found)
    )


def read(lines: Iterable[str]) -> Iterator[Item]:
    """The messages."""
    names: Dict[str, str] = {}
    begun = iter(lines)
    first = next((line for line in begun if line.strip()), "")
    found = _rows(chain([first], begun)) if first.lstrip().startswith("[") else None
    for number, line, row in found or jsonl.objects(chain([first], begun)):
        read_item = _item(row, names)
        if read_item is None:
            raise MisfitError(number, line)
        yield read_item


def _rows(lines: Iterable[str]) -> Iterator[Any]:
    for row in whole_json(lines):
        if not isinstance(row, dict):
            raise MisfitError(1, json.dumps(row))
        yield 1, json.dumps(row, ensure_ascii=False), row


def _item(row: Dict[str, Any], names: Dict[str, str]) -> Optional[Item]:
    """What a row says, None if it is not of Signal; `names` are those of recipients so far."""
    if isinstance(row.get("envelope"), dict):
        return _of_envelope(row["envelope"], row.get("account"))
    if isinstance(row.get("chatItem"), dict):
        return _of_chat_item(row["chatItem"], names)
    if any(name in row for name in _FRAMES) and "body" not in row:
        _learn_name(row, names)
        return _NOTICES
    if "body" not in row:
        return None
    if row.get("type") not in (None, "incoming", "outgoing"):
        return _NOTICES
    mine = "Me" if row.get("type") == "outgoing" else None
    sources = (row.get(n) for n in ("sender", "source", "sourceServiceId", "sourceUuid"))
    date = row.get("date") or _day(row.get("sent_at"))
    return _message(mine or next(filter(None, sources), ""), row["body"], str(date)[:10])


def _of_envelope(envelope: Dict[str, Any], account: Any) -> Item:
    sender = envelope.get("sourceName") or envelope.get("sourceNumber") or envelope.get("source")
    said = envelope.get("dataMessage")
    sync = envelope.get("syncMessage")
    if isinstance(sync, dict) and isinstance(sync.get("sentMessage"), dict):
        said, sender = sync["sentMessage"], sender or account
    if not isinstance(said, dict):
        return _NOTICES
    return _message(sender, said.get("message"), _day(said.get("timestamp")))


def _of_chat_item(found: Dict[str, Any], names: Dict[str, str]) -> Item:
    said = found.get("standardMessage")
    if not isinstance(said, dict):
        return LeftOut("deleted messages") if "remoteDeletedMessage" in found else _NOTICES
    author = str(found.get("authorId", ""))
    text = said.get("text")
    body = text.get("body") if isinstance(text, dict) else None
    return _message(names.get(author, author), body, _day(found.get("dateSent")))


def _learn_name(row: Dict[str, Any], names: Dict[str, str]) -> None:
    recipient = row.get("recipient")
    if not isinstance(recipient, dict):
        return
    contact = recipient.get("contact")
    name = "Me" if "self" in recipient else ""
    if isinstance(contact, dict):
        for kind in ("system", "profile"):
            parts = (contact.get(f"{kind}{part}Name") for part in ("Given", "Family"))
            name = name or " ".join(str(part) for part in parts if part)
        name = name or str(contact.get("e164") or "")
    names[str(recipient.get("id"))] = name or str(recipient.get("id"))


def _message(sender: Any, body: Any, date: str) -> Item:
    return item(sender, body, date) if isinstance(body, str) and body else LeftOut("media")


def _day(milliseconds: Any) -> str:
    try:
        return datetime.fromtimestamp(int(milliseconds) / 1000, timezone.utc).date().isoformat()
    except (TypeError, ValueError, OverflowError, OSError):
        return ""
