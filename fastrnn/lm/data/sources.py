"""Texts by name or path: your own files, two public books, and a text that needs no network.

A named text is looked for in the folder that the environment variable ``FASTRNN_DATA`` names, then
in the user's cache (``$XDG_CACHE_HOME/fastrnn`` or ``~/.cache/fastrnn``), and else downloaded into
the cache. Its SHA-256 is always checked.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import urllib.request
from itertools import chain
from pathlib import Path
from typing import Dict, Iterator, NamedTuple, Optional, Union

from fastrnn import _cache
from fastrnn.lm import encodings
from fastrnn.lm.config import Settings
from fastrnn.lm.data import chats, places
from fastrnn.lm.data.texts import PIECE, Joined, Text
from fastrnn.lm.errors import FileError, InputError
from fastrnn.lm.files import explained, write_atomically

BUILTIN = "builtin"
# Standard input; and what a run keeps as the name of a text that has none.
STDIN, PIPE = "-", "<pipe>"
_DESCRIPTORS = ("/dev/fd/", "/dev/stdin", "/proc/")
TIMEOUT_SECONDS = 60


class Source(NamedTuple):
    """Where a public text comes from."""

    url: str
    sha256: str


SOURCES: Dict[str, Source] = {
    "nietzsche": Source(
        "https://s3.amazonaws.com/text-datasets/nietzsche.txt",
        "23cf69874ab69d3d256099ab530ea4be24d47d9675b673bcc67cbcd6298ec647",
    ),
    "tinyshakespeare": Source(
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
}


class Reading(NamedTuple):
    """How files become texts; the names are those of the settings."""

    encoding: str = encodings.UTF_8
    format: str = "auto"
    sender: str = ""
    redact: bool = False

    @staticmethod
    def of(settings: Settings) -> Reading:
        """As the settings of a run say."""
        return Reading(*(getattr(settings, name) for name in Reading._fields))


USUAL = Reading()


def load_text(data: str) -> str:
    """The text that `data` names, as :func:`open_text` finds it, in memory."""
    return "".join(open_text(data).pieces())


def text_of(settings: Settings) -> Text:
    """The text of a run, without the parts that have files of their own."""
    return open_text(settings.data, Reading.of(settings))


def open_text(data: str, reading: Reading = USUAL) -> Text:
    """The text that `data` names: a known name first, else the path of a file.

    It is read when it is used, from its file each time; what comes from a pipe is kept in memory.

    Parameters
    ----------
    data : str
        ``builtin``, ``nietzsche``, ``tinyshakespeare``, ``-`` for standard input, or a path
        (``./nietzsche`` for a file of that name), a folder or a pattern such as ``chats/*.txt``;
        or several of them, as :func:`fastrnn.lm.data.places.together` puts them. All line ends
        become line feeds.
    reading : Reading
        For what has no name of its own.

    Raises
    ------
    InputError
        If there is no such file, it cannot be read, a download fails, or the SHA-256 of a named
        text is wrong.
    """
    encodings.check(reading.encoding)
    joined = places.several(data)
    files, notes = places.find(data) if joined else ([data], [])
    texts = [_open_one(file, reading) for file in files]
    if reading.sender:
        chats.keep_sender(texts, reading.sender)
    if reading.redact:
        found = (text for text in texts if isinstance(text, chats.Chat))
        redactor = chats.Redactor(chain.from_iterable(chat.survey.senders for chat in found))
        texts = [chats.Redacted(text, redactor) for text in texts]
    return Joined(title(data), texts, notes) if joined else texts[0]


def _open_one(data: str, reading: Reading) -> Text:
    if not data:
        raise InputError("data: got '', wanted the name of a text or of a file")
    if data == PIPE:  # a run that is resumed
        raise InputError(
            "data: the run's text came from a pipe, which is gone: --data can name a file with it, "
            "but not for evaluate --ngram"
        )
    if data == BUILTIN:
        return Text.of(builtin_text())
    if data in SOURCES:
        content = fetch(data)
        return Text(data, lambda: [content])
    if data != STDIN and os.path.isfile(data):
        text = Text(data, lambda: _pieces(data), reading.encoding)
        return chats.recognized(text, reading.format)
    kept = _read(0 if data == STDIN else Path(data))
    if kept is None:
        names = ", ".join([BUILTIN, *SOURCES])
        raise InputError(f"{data}: no such file, nor a text with a name ({names})")
    text = Text(title(data), lambda: [kept], reading.encoding)
    return chats.recognized(text, reading.format)


def title(data: str) -> str:
    """The name of `data` in messages."""
    first, *others = data.split(places.SEPARATOR)
    if others:
        return f"{title(first)} and {len(others):,} more"
    return "standard input" if data == STDIN else data


def lasting(data: str) -> str:
    """A name of the same text that is right later and in any working folder, or `PIPE`.

    Of a folder or a pattern, the files that it stands for now.
    """
    if places.several(data):
        return places.together([lasting(file) for file in places.find(data).files])
    if data == BUILTIN or data in SOURCES:
        return data
    path = os.path.abspath("/dev/stdin" if data == STDIN else data)
    if path.startswith(_DESCRIPTORS):
        path = os.path.realpath(path)  # of an open file, which has another number next time
    return path if os.path.isfile(path) else PIPE


def _pieces(path: str) -> Iterator[bytes]:
    """The content of a file."""
    with explained(f"{path}: cannot be read"), open(path, "rb") as file:
        yield from iter(lambda: file.read(PIECE), b"")


def _read(path: Union[Path, int]) -> Optional[bytes]:
    """The content of a file or descriptor, None if there is none."""
    with explained(f"{path or title(STDIN)}: cannot be read"):
        try:
            with open(path, "rb", closefd=path != 0) as file:
                return file.read()
        except FileNotFoundError:
            return None


def cache_folder() -> Path:
    """The user's cache for texts.

    Raises
    ------
    FileError
        If there is none, since the user has no home.
    """
    try:
        return _cache.cache_folder()
    except RuntimeError:
        raise FileError(
            "there is no home folder for a cache; XDG_CACHE_HOME can name another one"
        ) from None


def fetch(name: str) -> bytes:
    """The content of a named text, downloaded if it is not on this machine."""
    path = named_path(name)
    content = _read(path)
    if content is None:
        return _download(name, SOURCES[name])
    _check(content, SOURCES[name], str(path))
    return content


def named_path(name: str) -> Path:
    """Where a named text is, or would be put."""
    given = os.environ.get("FASTRNN_DATA")
    own = Path(given) / f"{name}.txt" if given else None
    return own if own and own.exists() else cache_folder() / f"{name}.txt"


def _download(name: str, source: Source) -> bytes:
    path = cache_folder() / f"{name}.txt"
    try:
        with urllib.request.urlopen(source.url, timeout=TIMEOUT_SECONDS) as reply:
            content = reply.read()
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise InputError(
            f"{name}: could not be downloaded from {source.url}: {reason}; "
            f"FASTRNN_DATA can name a folder that has {name}.txt"
        ) from None
    _check(content, source, source.url)
    with explained(f"{path.parent}: cannot be made"):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return content


def _check(content: bytes, source: Source, where: str) -> None:
    got = hashlib.sha256(content).hexdigest()
    if got != source.sha256:
        raise InputError(f"{where}: wrong checksum: SHA-256 is {got}, wanted {source.sha256}")


def builtin_text(topics: Optional[Dict[str, str]] = None) -> str:
    """English prose from the language reference that comes with every Python.

    The paragraphs of ``pydoc_data.topics``, each once, one to a line: code, tables and headings are
    left out, and typographic signs become ASCII. Python versions differ by some sentences.
    """
    if topics is None:
        from pydoc_data.topics import topics as carried

        topics = carried
    paragraphs: Dict[str, None] = {}
    for name in sorted(topics):
        for block in re.split(r"\n\s*\n", topics[name]):
            paragraph = _plain(block)
            if _is_prose(paragraph):
                paragraphs[paragraph] = None
    return "".join(paragraph + "\n" for paragraph in paragraphs)


_ASCII = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "..."})


def _plain(block: str) -> str:
    joined = re.sub(r"(?<=\w)-\n\s*(?=\w)", "-", block.translate(_ASCII))
    text = " ".join(joined.split())
    return text[2:] if text.startswith("* ") else text


def _is_prose(paragraph: str) -> bool:
    # Long enough for a sentence; many other signs mean code or grammar.
    if len(paragraph) < 40 or not paragraph.isascii() or "::=" in paragraph or ">>>" in paragraph:
        return False
    if not re.match(r'["*(]*[A-Z"]', paragraph) or paragraph[-1] not in ".:!?)":
        return False
    letters = sum(c.isalpha() or c in " ,.'" for c in paragraph)
    return letters > 0.85 * len(paragraph)
