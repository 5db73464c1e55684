"""What is read from an exported chat."""

from __future__ import annotations

from fastrnn.lm.data.chats import FORMATS
from fastrnn.lm.data.chats.message import LeftOut, Message


def items(name, text):
    return list(FORMATS[name].read(text.split("\n")))


def said(name, text):
    return [(m.sender, m.text) for m in items(name, text) if isinstance(m, Message)]


def left_out(name, text):
    return [item.kind for item in items(name, text) if isinstance(item, LeftOut)]
