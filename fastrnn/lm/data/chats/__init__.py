"""Exported chats as texts: each message is a line, without its sender and date.

One module knows one format. A format that is not named is recognised by the content.
"""

from __future__ import annotations

from typing import Dict, List, Sequence

from fastrnn.lm.data.chats import jsonl, signal, telegram, whatsapp
from fastrnn.lm.data.chats.chat import Chat
from fastrnn.lm.data.chats.message import Format, span
from fastrnn.lm.data.chats.redaction import Redacted, Redactor
from fastrnn.lm.data.texts import Text
from fastrnn.lm.errors import InputError

__all__ = ["FORMATS", "Chat", "Format", "Redacted", "Redactor", "keep_sender", "recognized"]

# In the order in which they are tried.
FORMATS: Dict[str, Format] = {
    "whatsapp": Format(whatsapp.TITLE, whatsapp.fits, whatsapp.read, whatsapp.span),
    "telegram": Format(telegram.TITLE, telegram.fits, telegram.read, span),
    "signal": Format(signal.TITLE, signal.fits, signal.read, span),
    "jsonl": Format(jsonl.TITLE, jsonl.fits, jsonl.read, span),
}


def recognized(text: Text, name: str) -> Text:
    """`text` as a chat of the format with a name; with ``auto``, only if it is one."""
    if name in FORMATS:
        return Chat(text, FORMATS[name])
    if name == "auto":
        head = next(text.parts(), "")
        for found in FORMATS.values():
            if found.fits(head):
                return Chat(text, found, recognized=True)
    return text


def keep_sender(texts: Sequence[Text], sender: str) -> None:
    """Keep one person's messages; InputError if there are none, or a text has no senders."""
    names: List[str] = []
    for text in texts:
        if not isinstance(text, Chat):
            raise InputError(f"from: got {sender!r}, but {text.name} is not a chat with senders")
        names += text.survey.senders
    kept = {name for name in names if name == sender}
    kept = kept or {name for name in names if name.casefold() == sender.casefold()}
    if not kept:
        found = ", ".join(sorted(set(names)))
        raise InputError(f"from: got {sender!r}, wanted one of: {found}")
    for text in texts:
        assert isinstance(text, Chat)
        text.kept = kept
