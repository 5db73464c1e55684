"""Texts that are read in pieces, as often as need be."""

from __future__ import annotations

import hashlib
from itertools import chain
from typing import Callable, Container, Iterable, Iterator, List, Optional, Sequence, Tuple, Union

from fastrnn.lm import encodings
from fastrnn.lm.errors import InputError

# Bytes of a piece: small enough for its tables and numbers to stay in the processor's cache.
PIECE = 1 << 18


class Text:
    """A text, normalized as :func:`fastrnn.lm.tokenizers.normalize` does it.

    Parameters
    ----------
    name : str
        For messages.
    read : callable
        Gives the content from its start, in pieces of any sizes, whenever it is called.
    encoding : str
        Of the content. By default it may also be UTF-16 with a byte order mark.
    """

    def __init__(
        self, name: str, read: Callable[[], Iterable[bytes]], encoding: str = encodings.UTF_8
    ) -> None:
        self.name = name
        self._read = read
        self._encoding = encoding
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
                f"text: {text[error.start]!r} at position {error.start} is not a character"
            ) from None
        return Text("text", lambda: [content])

    def pieces(self) -> Iterator[str]:
        """All of the text, in pieces that are not empty.

        Raises
        ------
        InputError
            If it is empty, not in its encoding, cannot be read, or differs from what was read
            before.
        """
        digest = hashlib.sha256()
        size = 0
        for piece in self.parts():
            content = piece.encode("utf-8")
            digest.update(content)
            size += len(content)
            yield piece
        if not size:
            raise InputError(f"{self.name}: {self.nothing}")
        measured = digest.hexdigest(), size
        if self._measured not in (None, measured):
            raise InputError(f"{self.name}: the file changed while it was read")
        self._measured = measured

    # What a text without a character is said to be.
    nothing = "the file is empty"

    def parts(self) -> Iterator[str]:
        """As :meth:`pieces`, but the text may be empty, and may have changed."""
        begun = False
        for decoded in self._decoded():
            piece = decoded if begun else decoded.lstrip("\ufeff")
            if piece:
                begun = True
                yield piece

    def reports(self) -> List[str]:
        """A line for each file: what was read and what was left out."""
        return []

    def _decoded(self) -> Iterator[str]:
        """The content with line feeds for all line ends."""
        parts = (
            content[begin : begin + PIECE]
            for content in self._read()
            for begin in range(0, len(content), PIECE)
        )
        head = b""
        for part in parts:
            head += part
            if len(head) > 1:
                break
        decoder = encodings.decoder(self._encoding, head)
        done = 0
        try:
            for part in chain([head], parts):
                done += len(part)
                yield decoder.decode(part)
            yield decoder.decode(b"", final=True)
        except UnicodeError as error:
            raise InputError(f"{self.name}: {self._complaint(error, done)}") from None

    def _complaint(self, error: UnicodeError, done: int) -> str:
        known = self._encoding == encodings.UTF_8
        what = f"not {'UTF-8' if known else self._encoding} text"
        if not isinstance(error, UnicodeDecodeError):
            return f"{what}: {error}"
        # Of what the decoder was given: the latest part, and what it kept from the part before.
        at = done - len(error.object) + error.start
        what += f": byte 0x{error.object[error.start]:02x} at position {at}"
        likely = encodings.likely(error.object) if known else ""
        return f"{what}; --encoding can name another, likely {likely}" if likely else what

    @property
    def sha256(self) -> str:
        """Of the normalized text in UTF-8."""
        return self._measure()[0]

    @property
    def size(self) -> int:
        """Bytes of the normalized text in UTF-8."""
        return self._measure()[1]

    def _measure(self) -> Tuple[str, int]:
        """SHA-256 and size; reads the text if it has not been read whole."""
        while self._measured is None:
            for _ in self.pieces():
                pass
        return self._measured


class Known(Text):
    """A text without the characters that a model does not know.

    Attributes
    ----------
    passed_over : int
        How many these are, once the text was read.
    """

    nothing = "there is no character that the model knows"

    def __init__(self, source: Text, characters: Container[str]) -> None:
        super().__init__(source.name, lambda: [])
        self.passed_over = 0
        self._source = source
        self._characters = characters

    def parts(self) -> Iterator[str]:
        passed_over = 0
        for part in self._source.parts():
            strange = {ord(c): None for c in set(part) if c not in self._characters}
            known = part.translate(strange) if strange else part
            passed_over += len(part) - len(known)
            if known:
                yield known
        self.passed_over = passed_over

    def reports(self) -> List[str]:
        return self._source.reports()


class Joined(Text):
    """Several texts as one; each begins a line."""

    nothing = "the files are empty"

    def __init__(self, name: str, texts: Sequence[Text], notes: Sequence[str] = ()) -> None:
        super().__init__(name, lambda: [])
        self.texts = list(texts)
        self._notes = list(notes)
        self._characters = [0] * len(self.texts)

    def parts(self) -> Iterator[str]:
        last = "\n"
        for number, text in enumerate(self.texts):
            characters = 0
            for piece in text.parts():
                if last != "\n" and not characters:
                    yield "\n"
                characters += len(piece)
                last = piece[-1]
                yield piece
            self._characters[number] = characters

    def reports(self) -> List[str]:
        self._measure()
        lines = []
        for text, characters in zip(self.texts, self._characters):
            lines += text.reports() or [f"{text.name}: text, {characters:,} characters"]
        return lines + self._notes


def whole_lines(pieces: Iterable[str]) -> Iterator[str]:
    """The same text in pieces that end where lines do; only the last may lack a line end."""
    begun: List[str] = []
    for piece in pieces:
        end = piece.rfind("\n") + 1
        if end:
            yield "".join([*begun, piece[:end]])
            begun = []
        begun.append(piece[end:])
    if any(begun):
        yield "".join(begun)
