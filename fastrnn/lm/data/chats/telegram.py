"""Telegram's ``result.json``: one chat, or all of an account in ``chats.list``."""

from __future__ import annotations

import json
import re
from typing import Any, Dict, Iterable, Iterator, List

from fastrnn.lm.data.chats.message import Item, LeftOut, MisfitError, item, whole_json

TITLE = "Telegram"
_FITS = re.compile(
    r'\s*\{.*?(?:"type"\s*:\s*"(?:\w+_(?:chat|group|supergroup|channel)|saved_messages)"'
    r'|"(?:chats|left_chats|personal_information)"\s*:\s*\{)',
    re.DOTALL,
)


def fits(head: str) -> bool:
    """Whether it begins as JSON with the kind of a chat, or with the parts of an account."""
    return bool(_FITS.match(head))


def read(lines: Iterable[str]) -> Iterator[Item]:
    """The messages, in the order of the file, which is read as a whole."""
    export = whole_json(lines)
    chats = _chats(export)
    if chats is None:
        raise MisfitError(1, json.dumps(export, ensure_ascii=False))
    for chat in chats:
        for message in chat:
            yield _item(message) if isinstance(message, dict) else LeftOut("service messages")


def _chats(export: Any) -> Any:
    """The messages of each chat, None if there are no chats."""
    if not isinstance(export, dict):
        return None
    if isinstance(export.get("messages"), list):
        return [export["messages"]]
    found: List[List[Any]] = []
    parts = [export[name] for name in ("chats", "left_chats") if isinstance(export.get(name), dict)]
    for part in parts:
        chats = part.get("list")
        for chat in chats if isinstance(chats, list) else []:
            if isinstance(chat, dict) and isinstance(chat.get("messages"), list):
                found.append(chat["messages"])
    return found if parts else None


def _item(message: Dict[str, Any]) -> Item:
    if message.get("type") != "message":
        return LeftOut("service messages")
    if "forwarded_from" in message:  # another person's words
        return LeftOut("forwarded messages")
    text = message.get("text", "")
    for part in text if isinstance(text, list) else []:
        if not isinstance(part, (str, dict)):
            return LeftOut("service messages")
    if isinstance(text, list):
        text = "".join(p if isinstance(p, str) else str(p.get("text") or "") for p in text)
    if not isinstance(text, str) or (not text.strip() and _is_media(message)):
        return LeftOut("media")
    return item(
        message.get("from") or message.get("from_id"), text, str(message.get("date") or "")[:10]
    )


def _is_media(message: Dict[str, Any]) -> bool:
    return any(
        name in message
        for name in ("file", "photo", "media_type", "contact_information", "location_information")
    )
