"""Texts as token numbers, in the smallest unsigned type that holds them.

Texts are read and numbered in pieces. The numbers of a large one are a file in the user's cache
(:func:`fastrnn.lm.data.cache_folder`), which is mapped into memory: under the hash of the text and
the rule that numbers it, so that the next run finds it. Such a file may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import struct
import tempfile
import unicodedata
from collections import Counter
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple, Union

import numpy as np

from fastrnn.lm.config import Settings
from fastrnn.lm.data import PIPE, Reading, cache_folder, lasting, open_text, title
from fastrnn.lm.data.texts import Text
from fastrnn.lm.errors import FileError, InputError, UnknownCharacterError
from fastrnn.lm.files import atomic_writer, explained
from fastrnn.lm.tokenizers import Tokenizer, tokenizer_for
from fastrnn.lm.tokenizers.vocabulary import Appearances, Vocabulary, smallest

# Texts of fewer bytes are numbered anew each time, in less than a second.
CACHED_BYTES = 4 << 20
_AT_ONCE = 1 << 18
# A file has the numbers, the vocabulary as JSON, its length, and the SHA-256 of all that. The
# format changes when this does, or what a tokenizer's version does.
_LENGTH, _FORMAT = struct.Struct("<Q"), 2
_LOG = logging.getLogger(__name__)

Numbered = Tuple[Vocabulary, np.ndarray]
# Numbers a text, with the help of a scratch file.
_Method = Callable[[BinaryIO], Tuple[Vocabulary, Iterator[np.ndarray]]]


class Corpus(NamedTuple):
    """A text as token numbers, split by position, or by files; the parts do not overlap."""

    vocabulary: Vocabulary
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def split_sizes(length: int, validation: float, test: float) -> Tuple[int, int, int]:
    """How many of `length` tokens the parts get: the rounded shares, the rest for training."""
    held_out, tested = round(length * validation), round(length * test)
    return length - held_out - tested, held_out, tested


def encode_corpus(
    text: Union[str, Text], settings: Settings, tokenizer: Optional[Tokenizer] = None
) -> Corpus:
    """Number the tokens of `text` and split them as `settings` say: training, validation, test.

    A vocabulary with a marker for unknown tokens is built from the training part alone, so that the
    other parts hold unknown tokens as any new text does. One of characters without it is built from
    the whole text. Parts that have files of their own never count.

    Parameters
    ----------
    text : str or Text
        It is normalized first.
    settings : Settings
        Of which `level`, `min_count`, and all of `validation` and `test` count.
    tokenizer : Tokenizer, optional
        The newest one of the level by default.
    """
    text, rule = Text.of(text), tokenizer or tokenizer_for(settings.level)
    shares = settings.validation, settings.test
    vocabulary, numbers = _kept(
        text,
        [rule.level, rule.version, settings.min_count, *shares],
        lambda scratch: _learned(text, rule, settings, scratch),
    )
    first, second, _ = split_sizes(len(numbers), *shares)
    corpus = Corpus(
        vocabulary, numbers[:first], numbers[first : first + second], numbers[first + second :]
    )
    for part, apart in held_out(settings).items():
        try:
            numbers = encode_text(apart, vocabulary)
        except UnknownCharacterError as error:
            raise InputError(
                f"{part}_data: {apart.name}: {error}; with --min-count 2 it takes any"
            ) from None
        corpus = Corpus(**{**corpus._asdict(), part: numbers})
    return corpus


def held_out(settings: Settings) -> Dict[str, Text]:
    """The parts that have files of their own."""
    found: Dict[str, Text] = {}
    for part in ("validation", "test"):
        data = getattr(settings, f"{part}_data")
        if data:
            place = lasting(data)
            if place == PIPE:
                raise InputError(
                    f"{part}_data: got {title(data)}, wanted a file that is there, and no pipe"
                )
            found[part] = open_text(place, Reading.of(settings))
    return found


def fingerprint(text: Text, settings: Settings) -> str:
    """A hash of all that a run learns from and is judged by."""
    apart = held_out(settings)
    if not apart:
        return text.sha256
    hashes = [text.sha256, *(f"{part} {of.sha256}" for part, of in apart.items())]
    return hashlib.sha256("\n".join(hashes).encode("ascii")).hexdigest()


def encode_text(text: Text, vocabulary: Vocabulary) -> np.ndarray:
    """The numbers that `vocabulary` gives the tokens of `text`."""
    return _kept(text, vocabulary.to_json(), lambda _: (vocabulary, _known(text, vocabulary)))[1]


def _known(text: Text, vocabulary: Vocabulary) -> Iterator[np.ndarray]:
    before = 0
    for tokens in vocabulary.tokenizer.tokenize_pieces(text.pieces()):
        yield vocabulary.numbers(tokens, before).astype(smallest(vocabulary))
        before += len(tokens)


def _learned(
    text: Text, tokenizer: Tokenizer, settings: Settings, scratch: BinaryIO
) -> Tuple[Vocabulary, Iterator[np.ndarray]]:
    """The vocabulary, which takes all of the text to know, and the numbers."""
    seen = Appearances(tokenizer)
    sizes: Dict[np.dtype, int] = Counter()  # the types follow each other
    for tokens in tokenizer.tokenize_pieces(text.pieces()):
        numbers = seen.numbers(tokens)
        scratch.write(numbers.tobytes())
        sizes[numbers.dtype] += len(numbers)
    if not sum(sizes.values()):
        raise InputError("the text is empty")
    left = split_sizes(sum(sizes.values()), settings.validation, settings.test)[0]
    counts = np.zeros(len(seen), np.int64)
    for numbers in _read_back(scratch, sizes):
        counts += np.bincount(numbers[:left], minlength=len(seen))
        left -= len(numbers[:left])
    frequencies = Counter(dict(zip(seen, counts.tolist())))
    vocabulary = Vocabulary.build(frequencies, tokenizer, settings.min_count)
    table = vocabulary.numbers(list(seen)).astype(smallest(vocabulary))
    return vocabulary, (table[numbers] for numbers in _read_back(scratch, sizes))


def _read_back(scratch: BinaryIO, sizes: Dict[np.dtype, int]) -> Iterator[np.ndarray]:
    scratch.seek(0)
    for kind, size in sizes.items():
        for begin in range(0, size, _AT_ONCE):
            count = min(_AT_ONCE, size - begin)
            yield np.frombuffer(scratch.read(count * kind.itemsize), kind)


def _kept(text: Text, rule: Any, method: _Method) -> Numbered:
    """What `method` gives: from the cache or, if the text is small or the cache fails, from it."""
    found: Optional[Numbered] = None
    if text.size >= CACHED_BYTES:
        what = json.dumps([_FORMAT, _characters(), text.sha256, rule])
        try:
            path = cache_folder() / "numbers" / hashlib.sha256(what.encode("ascii")).hexdigest()
            found = _open(path)
            if found is None:
                _save(path, method)
                found = _open(path)
            if found is None:
                raise FileError(f"{path}: damaged as soon as it was written")
        except FileError as error:
            _LOG.warning("%s; the numbers of %s stay in memory", error, text.name)
    return found or _in_memory(method)


def _characters() -> List[Optional[str]]:
    """The versions of what knows the characters' properties, on which tokens depend."""
    try:
        import regex
    except ImportError:
        return [unicodedata.unidata_version, None]
    return [unicodedata.unidata_version, regex.__version__]


def _in_memory(method: _Method) -> Numbered:
    vocabulary, pieces = method(io.BytesIO())
    return vocabulary, np.concatenate([np.empty(0, smallest(vocabulary)), *pieces])


def _save(path: Path, method: _Method) -> None:
    with explained(f"{path.parent}: cannot be made", FileError):
        path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_writer(path) as file, tempfile.TemporaryFile(dir=path.parent) as scratch:
        digest = hashlib.sha256()
        vocabulary, pieces = method(scratch)
        tokens = vocabulary.to_json().encode("utf-8")
        for part in chain(
            (numbers.tobytes() for numbers in pieces), [tokens, _LENGTH.pack(len(tokens))]
        ):
            file.write(part)
            digest.update(part)
        file.write(digest.digest())


def _open(path: Path) -> Optional[Numbered]:
    """What :func:`_save` wrote, mapped into memory; None if it is not there or damaged."""
    with explained(f"{path}: cannot be read", FileError), suppress(FileNotFoundError), open(
        path, "rb"
    ) as file:
        digest = hashlib.sha256()
        end = os.fstat(file.fileno()).st_size - digest.digest_size
        for begin in range(0, end, _AT_ONCE):
            digest.update(file.read(min(_AT_ONCE, end - begin)))
        if end < _LENGTH.size or file.read() != digest.digest():
            return None
        file.seek(end - _LENGTH.size)
        (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
        size = end - _LENGTH.size - length
        file.seek(size)
        vocabulary = Vocabulary.from_json(file.read(length).decode("utf-8"))
        kind = smallest(vocabulary)
        # A plain array: the slices of a memmap are slow to make.
        return vocabulary, np.asarray(np.memmap(file, kind, "r", shape=(size // kind.itemsize,)))
    return None
