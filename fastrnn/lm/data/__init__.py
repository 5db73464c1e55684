"""Texts: where they come from, how files become texts, and texts as numbers."""

from __future__ import annotations

from fastrnn.lm.data.sources import (
    BUILTIN,
    PIPE,
    SOURCES,
    Reading,
    Source,
    builtin_text,
    cache_folder,
    lasting,
    load_text,
    named_path,
    open_text,
    text_of,
    title,
)

__all__ = [
    "BUILTIN",
    "PIPE",
    "SOURCES",
    "Reading",
    "Source",
    "builtin_text",
    "cache_folder",
    "lasting",
    "load_text",
    "named_path",
    "open_text",
    "text_of",
    "title",
]
