"""Texts that are read in pieces, as often as need be."""

from __future__ import annotations

import codecs
import hashlib
import io
from typing import Callable, Iterable, Iterator, Optional, Tuple, Union

from fastrnn.lm.errors import InputError

# Bytes of a piece: small enough for its tables and numbers to stay in the processor's cache.
PIECE = 1 << 18


class Text:
    """A text in UTF-8, normalized as :func:`fastrnn.lm.tokenizers.normalize` does it.

    Parameters
    ----------
    name : str
        For messages.
    read : callable
        Gives the content from its start, in pieces of any sizes, whenever it is called.
    """

    def __init__(self, name: str, read: Callable[[], Iterable[bytes]]) -> None:
        self.name = name
        self._read = read
        self._measured: Optional[Tuple[str, int]] = None

    @staticmethod
    def of(text: Union[str, Text]) -> Text:
        """`text` itself, or one that is in memory."""
        if isinstance(text, Text):
            return text
        if not text:
            raise InputError("the text is empty")
        try:
            content = text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(
                f"text: {text[error.start]!r} at position {error.start} is no character"
            ) from None
        return Text("text", lambda: [content])

    def pieces(self) -> Iterator[str]:
        """All of the text, in pieces that are not empty.

        Raises
        ------
        InputError
            If it is empty, not UTF-8, cannot be read, or differs from what was read before.
        """
        digest = hashlib.sha256()
        size = 0
        for decoded in self._decoded():
            piece = decoded if size else decoded.lstrip("\ufeff")
            if piece:
                content = piece.encode("utf-8")
                digest.update(content)
                size += len(content)
                yield piece
        if not size:
            raise InputError(f"{self.name}: the file is empty")
        measured = digest.hexdigest(), size
        if self._measured not in (None, measured):
            raise InputError(f"{self.name}: the file changed while it was read")
        self._measured = measured

    def _decoded(self) -> Iterator[str]:
        """The content with line feeds for all line ends."""
        decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")(), True)
        done = 0
        try:
            for content in self._read():
                for begin in range(0, len(content), PIECE):
                    part = content[begin : begin + PIECE]
                    done += len(part)
                    yield decoder.decode(part)
            yield decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            # Of what it was given: the latest part, and what it kept from the part before.
            at = done - len(error.object) + error.start
            raise InputError(
                f"{self.name}: not UTF-8 text: byte 0x{error.object[error.start]:02x} at position "
                f"{at}"
            ) from None

    @property
    def sha256(self) -> str:
        """Of the normalized text in UTF-8."""
        return self._measure()[0]

    @property
    def size(self) -> int:
        """Bytes of the normalized text in UTF-8."""
        return self._measure()[1]

    def _measure(self) -> Tuple[str, int]:
        """SHA-256 and size, for which the text is read unless it was before."""
        while self._measured is None:
            for _ in self.pieces():
                pass
        return self._measured
