"""Texts that are read, cut and numbered in pieces, and the files that keep their numbers."""

from __future__ import annotations

import hashlib
import itertools
import os
import resource
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fastrnn.lm import InputError, Settings, Vocabulary, data, tokenizers
from fastrnn.lm.data import corpus
from fastrnn.lm.data.corpus import encode_corpus, encode_text, split_sizes
from fastrnn.lm.data.texts import Text
from fastrnn.lm.tokenizers import (
    CharacterTokenizer,
    CodePointTokenizer,
    WhitespaceTokenizer,
    WordTokenizer,
    normalize,
    words,
)

regex = pytest.importorskip("regex")

KINDS = [CharacterTokenizer(), WordTokenizer(), WhitespaceTokenizer(), CodePointTokenizer()]
PROSE = data.builtin_text()[:20_000]
# Line ends, spaces, what joins and what stands alone, marks, scripts with and without spaces.
SIGNS = (
    "\n\n\r\r\ufeff  \t\u00a0\u3000\x1caab1é’'-_<>.,“»„…\u0301\u200d\u200c\u200b\ufe0f\u0600"
    "हिกำ你好カ가שָׁ״مُ👩🚀🏽🇩🇪"
)
TEXTS = st.lists(st.one_of(st.sampled_from(SIGNS), st.sampled_from(["\r\n", "the", "'s", "<unk>"])))
TEXTS = TEXTS.map("".join)
CUTS = st.lists(st.integers(1, 9), min_size=1, max_size=5)


def in_pieces(text, cuts):
    """`text`, read in pieces of as many bytes as `cuts` say, over and over."""
    content = text if isinstance(text, bytes) else text.encode()

    def read():
        sizes, begin = itertools.cycle(cuts), 0
        while begin < len(content):
            size = next(sizes)
            yield content[begin : begin + size]
            begin += size

    return Text("book", read)


def plain(text, tokenizer, settings):
    """Vocabulary and numbers without pieces."""
    tokens = tokenizer.tokenize(normalize(text))
    first = split_sizes(len(tokens), settings.validation, settings.test)[0]
    whole = tokenizer.level == "character" and settings.min_count == 1
    known = tokens if whole else tokens[:first]
    vocabulary = Vocabulary.build(known, tokenizer, settings.min_count)
    return vocabulary, vocabulary.numbers(tokens).tolist()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder for numbers, of texts of any size."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(corpus, "CACHED_BYTES", 0)
    return tmp_path / "cache" / "fastrnn" / "numbers"


def whole(found):
    return np.concatenate(found[1:]).tolist()


def files(folder):
    return list(folder.iterdir()) if folder.is_dir() else []


@given(TEXTS, CUTS, st.sampled_from(KINDS), st.integers(1, 2))
def test_the_numbers_are_those_of_the_whole_text(monkeypatch, text, cuts, tokenizer, min_count):
    monkeypatch.setattr(corpus, "_AT_ONCE", 5)
    settings = Settings(level=tokenizer.level, validation=0.3, test=0.1, min_count=min_count)
    if not len(tokenizer.tokenize(normalize(text))):
        with pytest.raises(InputError, match="empty"):
            encode_corpus(in_pieces(text, cuts), settings, tokenizer)
        return
    found = encode_corpus(in_pieces(text, cuts), settings, tokenizer)
    vocabulary, numbers = plain(text, tokenizer, settings)
    assert found.vocabulary == vocabulary
    assert whole(found) == numbers
    known = encode_text(in_pieces(text, cuts), vocabulary)
    assert known.tolist() == numbers
    assert known.dtype == found.train.dtype == np.uint8


@given(st.one_of(TEXTS, st.text(st.characters(blacklist_categories=["Cs"]))), CUTS)
def test_a_text_in_pieces_is_normalized_and_hashed_as_a_whole(text, cuts):
    for marked in (text, "\ufeff\ufeff" + text):
        if normalize(marked):
            read = in_pieces(marked, cuts)
            assert "".join(read.pieces()) == normalize(marked)
            content = normalize(marked).encode()
            assert (read.sha256, read.size) == (hashlib.sha256(content).hexdigest(), len(content))


@given(st.binary(min_size=1), CUTS)
def test_a_wrong_byte_is_named_as_in_the_whole_text(content, cuts):
    assume(not content.startswith((b"\xff\xfe", b"\xfe\xff")))  # UTF-16
    try:
        content.decode()
    except UnicodeDecodeError as error:
        message = f"byte 0x{content[error.start]:02x} at position {error.start}(;|$)"
        with pytest.raises(InputError, match=message):
            list(in_pieces(content, cuts).pieces())


@pytest.mark.parametrize("tokenizer", KINDS, ids=lambda t: f"{t.level}-{t.version}")
@given(text=TEXTS.map(normalize))
def test_tokens_on_both_sides_of_a_seam(tokenizer, text):
    seam = tokenizer.seam(text)
    both = [*tokenizer.tokenize(text[:seam]), *tokenizer.tokenize(text[seam:])]
    assert both == list(tokenizer.tokenize(text))


@given(TEXTS.map(lambda text: text.replace("\n", " ")))
def test_words_are_cut_as_in_the_whole_line(line):
    """Against the rule for spaces as it is written: one beside another token than English's."""
    rules = words._rules()
    token = regex.compile(r"[\s\x1c-\x1f]++|" + rules.token.pattern, regex.VERSION1 | regex.DOTALL)
    tokens = token.findall(line)
    own = [not (t.isspace() or rules.english.match(t)) for t in tokens]
    own = [False, *own, False]
    wanted = [t for n, t in enumerate(tokens) if not t.isspace() or own[n] or own[n + 2]]
    assert WordTokenizer().cut(line) == wanted


def test_only_so_many_words_are_remembered(monkeypatch):
    many = [f"{n}{'é' * (n % 40)}" for n in range(300)]
    cut = words._rules().cut
    cut.clear()
    monkeypatch.setattr(words, "_REMEMBERED", 100)
    assert WordTokenizer().cut(" ".join(many)) == many
    assert len(cut) <= 100
    assert max(map(len, cut)) <= words._SHORT


def test_a_text_without_seams_is_searched_a_few_times(monkeypatch):
    searched = []

    class Counting(WordTokenizer):
        def seam(self, text):
            searched.append(len(text))
            return super().seam(text)

    text = "你" * 3000
    pieces = (text[n : n + 3] for n in range(0, 3000, 3))
    tokens = itertools.chain.from_iterable(Counting().tokenize_pieces(pieces))
    assert list(tokens) == list(text)
    assert sum(searched) < 3 * len(text)


def test_the_smallest_type_that_holds_the_numbers():
    for different, kind in ((256, np.uint8), (257, np.uint16), (65_537, np.uint32)):
        text = "".join(map(chr, range(0x10000, 0x10000 + different)))
        found = encode_corpus(in_pieces(text, [400]), Settings())
        assert found.train.dtype == kind
        assert whole(found) == list(range(different))


def test_an_unknown_character_is_named_as_in_the_whole_text():
    vocabulary = Vocabulary.build("abc\n", CharacterTokenizer())
    text = "abc\r\n" * 20 + "abß"
    with pytest.raises(InputError) as wanted:
        vocabulary.encode(text)
    with pytest.raises(InputError) as found:
        encode_text(in_pieces(text, [7]), vocabulary)
    assert str(found.value) == str(wanted.value)


@pytest.mark.parametrize("level", tokenizers.LEVELS)
def test_numbers_are_kept(cache, monkeypatch, level):
    settings = Settings(level=level)
    first = encode_corpus(PROSE, settings)
    assert len(files(cache)) == 1
    monkeypatch.setattr(corpus, "_save", None)
    again = encode_corpus(in_pieces(PROSE, [100]), settings)
    assert again.vocabulary == first.vocabulary
    tokenizer = tokenizers.tokenizer_for(level)
    assert whole(again) == whole(first) == plain(PROSE, tokenizer, settings)[1]
    assert isinstance(again.train.base.base, np.memmap)
    assert not again.train.flags.writeable


def test_what_changes_the_numbers_has_another_file(cache):
    settings = Settings(level="word")
    changes = {"level": "whitespace"}, {"min_count": 2}, {"validation": 0.5}, {"test": 0.5}
    for changed in (settings, *map(settings.updated, changes)):
        found = encode_corpus(PROSE, changed)
        tokenizer = tokenizers.tokenizer_for(changed.level)
        assert (found.vocabulary, whole(found)) == plain(PROSE, tokenizer, changed)
    encode_corpus(PROSE, settings, CodePointTokenizer())
    encode_corpus(PROSE + "!", settings)
    encode_text(Text.of(PROSE), found.vocabulary)
    assert len(files(cache)) == 8


@pytest.mark.parametrize(
    "damage",
    [
        *[lambda content, at=at: content[:at] + b"!" + content[at + 1 :] for at in (0, 9_000)],
        *[lambda content, at=at: content[:-at] + b"\xff" + content[len(content) - at + 1 :]
          for at in (1, 20, 40, 60)],
        *[lambda content, size=size: content[:size] for size in (0, 1, 31, 39, 40, 9_000, -1)],
        lambda content: content + b"\0",
        lambda content: content[1:],
    ],
)  # fmt: skip
def test_a_damaged_file_is_made_anew(cache, damage):
    wanted = whole(encode_corpus(PROSE, Settings()))
    (file,) = files(cache)
    content = file.read_bytes()
    assert damage(content) != content
    file.write_bytes(damage(content))
    assert whole(encode_corpus(PROSE, Settings())) == wanted
    assert files(cache) == [file]
    assert file.read_bytes() == content


def test_numbers_in_use_outlive_their_file(cache):
    found = encode_corpus(PROSE, Settings())
    (file,) = files(cache)
    file.unlink()
    assert whole(found) == plain(PROSE, KINDS[0], Settings())[1]


def test_a_small_text_has_no_file(cache, monkeypatch):
    monkeypatch.setattr(corpus, "CACHED_BYTES", len(PROSE) + 1)
    encode_corpus(PROSE, Settings())
    assert files(cache) == []
    encode_corpus(PROSE + "!", Settings())
    assert len(files(cache)) == 1


def test_without_a_cache_one_line_says_so(cache, caplog):
    cache.parent.parent.write_text("no folder")
    found = encode_corpus(in_pieces(PROSE, [99]), Settings())
    assert whole(found) == plain(PROSE, KINDS[0], Settings())[1]
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith(str(cache))
    assert line.endswith(": cannot be read: Not a directory; the numbers of book stay in memory")


def test_without_a_home_one_line_says_so(cache, caplog, monkeypatch):
    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", home)
    found = encode_corpus(in_pieces(PROSE, [99]), Settings())
    assert whole(found) == plain(PROSE, KINDS[0], Settings())[1]
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith("there is no home folder for a cache; XDG_CACHE_HOME can name another")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to any folder")
def test_a_cache_that_is_read_only(cache, caplog):
    wanted = whole(encode_corpus(PROSE, Settings()))
    cache.chmod(0o500)
    try:
        assert whole(encode_corpus(PROSE, Settings())) == wanted
        assert not caplog.records
        assert whole(encode_corpus(PROSE + "!", Settings()))[:-1] == wanted
        assert "not written: Permission denied; the numbers of" in caplog.text
    finally:
        cache.chmod(0o700)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "the text is empty"), ("a\ud800b", r"text: '\\ud800' at position 1 is not a character")],
)
def test_what_is_no_text(text, message):
    with pytest.raises(InputError, match=message):
        encode_corpus(text, Settings())


def test_a_text_that_changes_while_it_is_read(cache):
    contents = iter([b"one text", b"another text"])
    with pytest.raises(InputError, match="book: the file changed while it was read"):
        encode_corpus(Text("book", lambda: [next(contents)]), Settings())
    assert files(cache) == []


PROGRAM = """
import hashlib, sys
from fastrnn.lm import Settings
from fastrnn.lm.data import corpus
from fastrnn.lm.data import open_text
corpus.CACHED_BYTES = 0
text = open_text(sys.argv[1])
print("ready", flush=True)
input()
found = corpus.encode_corpus(text, Settings(level="word", validation=0))
print(hashlib.sha256(found.train.tobytes()).hexdigest(), len(found.vocabulary))
"""


def program(path, cache, **options):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(path)],
        env={**os.environ, "XDG_CACHE_HOME": str(cache.parent.parent)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text(PROSE)
    return path


def wanted_of(book):
    found = encode_corpus(Text.of(PROSE), Settings(level="word", validation=0))
    return f"{hashlib.sha256(found.train.tobytes()).hexdigest()} {len(found.vocabulary)}\n"


def test_two_at_once(cache, book):
    both = [program(book, cache) for _ in range(2)]
    assert [one.stdout.readline() for one in both] == ["ready\n"] * 2
    for one in both:
        one.stdin.write("\n")
        one.stdin.flush()
    said = [one.communicate() for one in both]
    assert [one.returncode for one in both] == [0, 0]
    assert len(files(cache)) == 1
    assert said == [(wanted_of(book), "")] * 2


def test_a_full_disk(cache, book, tmp_path):
    """A limit on the size of files stands for it."""
    one = program(
        book, cache, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (99,) * 2)
    )
    said, complaints = one.communicate("\n")
    assert one.returncode == 0
    assert files(cache) == []
    assert said == "ready\n" + wanted_of(book)
    (line,) = complaints.splitlines()
    assert line.endswith(f"not written: File too large; the numbers of {book} stay in memory")


def test_memory_does_not_grow_with_the_text(cache, tmp_path):
    path = Path(tmp_path / "large.txt")
    path.write_text(PROSE * 400)
    tracemalloc.start()
    found = encode_corpus(data.open_text(str(path)), Settings(level="word"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found.train) > 1_000_000
    assert peak < 5_000_000 < path.stat().st_size
