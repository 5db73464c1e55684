"""Encodings of texts, and a guess for a text that is in another one than was said."""

from __future__ import annotations

import codecs
import io
import re

from fastrnn.lm.errors import InputError

UTF_8 = "utf-8"
UTF_16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# From this share of bytes beyond ASCII on, letters are mostly not Latin.
_FOREIGN = 0.4


def check(encoding: str) -> None:
    """InputError for what is not the name of an encoding of text."""
    try:
        b" ".decode(encoding, "ignore")
        codecs.getincrementaldecoder(encoding)
    except (LookupError, ValueError):
        raise InputError(
            f"encoding: got {encoding!r}, wanted a name such as utf-8, utf-16 or cp1252"
        ) from None


def decoder(encoding: str, head: bytes) -> io.IncrementalNewlineDecoder:
    """What makes text with line feeds of a content that begins with `head`, at least two bytes.

    No text in UTF-8 begins with a byte order mark of UTF-16, which therefore says enough.
    """
    if encoding == UTF_8 and head.startswith(UTF_16_MARKS):
        encoding = "utf-16"
    return io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(encoding)(), True)


def likely(content: bytes) -> str:
    """The encodings that a piece of text which is not UTF-8 is likely in, or nothing."""
    if b"\0\0\0" in content:
        return ""  # no text at all: UTF-16 has at most two zeros side by side
    zeros = [content[begin::2].count(0) / max(1, len(content) // 2) for begin in (0, 1)]
    for share, name in zip(zeros, ("utf-16-be", "utf-16-le")):
        if share > _FOREIGN:
            return name
    if b"\0" in content:
        return ""
    beyond = len(re.findall(rb"[\x80-\xff]", content))
    letters = beyond + len(re.findall(rb"[A-Za-z]", content))
    if beyond > _FOREIGN * letters:
        return "of a script other than Latin, such as cp1251, gb18030 or shift_jis"
    # What Windows leaves undefined; ISO 8859-1 has rare controls there.
    return "" if re.search(rb"[\x81\x8d\x8f\x90\x9d]", content) else "cp1252"
