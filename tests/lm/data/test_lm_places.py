"""Texts of several files, in folders, by patterns, and in other encodings."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrnn import cli
from fastrnn.lm import InputError, Settings, data
from fastrnn.lm.data import Reading, load_text, open_text
from fastrnn.lm.data.places import together
from fastrnn.lm.data.texts import Joined, Text
from fastrnn.lm.training.checkpoint import load_checkpoint

TINY = ["--hidden", "8", "--embed", "4", "--batch", "2", "--steps", "10", "--epochs", "1"]
TINY += ["--sample", "0", "--device", "cpu"]


@pytest.fixture
def shelf(tmp_path):
    """A folder with files of several kinds."""
    folder = tmp_path / "shelf"
    (folder / "more").mkdir(parents=True)
    for name, content in {
        "b.txt": b"second",
        "a.txt": b"\xef\xbb\xbffirst\r\n",
        "c.txt": b"",
        ".hidden": b"hidden",
        "photo.JPG": b"\xff\xd8",
        "more/d.txt": b"fourth\n",
    }.items():
        (folder / name).write_bytes(content)
    return folder


def test_a_folder_is_read_by_name(shelf):
    text = open_text(str(shelf))
    assert "".join(text.pieces()) == "first\nsecond"
    assert text.reports() == [
        f"{shelf}/a.txt: text, 6 characters",
        f"{shelf}/b.txt: text, 6 characters",
        f"{shelf}/c.txt: text, 0 characters",
        f"{shelf}: left out 1 files that are not text",
    ]


def test_names_keep_their_order_and_no_file_is_read_twice(shelf):
    names = [shelf / "b.txt", shelf / "more" / "*.txt", shelf, shelf / "more/../a.txt", "builtin"]
    text = load_text(together([str(name) for name in names]))
    assert text == "second\nfourth\nfirst\n" + data.builtin_text()


def test_a_pattern_goes_into_folders(shelf):
    assert load_text(f"{shelf}/**/[ad].txt") == "first\nfourth\n"


def test_a_file_whose_name_looks_like_a_pattern(tmp_path):
    path = tmp_path / "what[1].txt"
    path.write_text("this one")
    assert load_text(str(path)) == "this one"
    assert data.lasting(str(path)) == str(path)


@given(st.lists(st.text("ab\n", max_size=5), min_size=1, max_size=5))
def test_no_line_has_text_of_two_files(texts):
    joined = Joined("all", [Text("one", lambda t=t: [t.encode()]) for t in texts])
    if not any(texts):
        with pytest.raises(InputError, match="all: the files are empty"):
            list(joined.pieces())
        return
    found = "".join(joined.pieces())
    filled = [text for text in texts if text]
    wanted = [text if text.endswith("\n") else text + "\n" for text in filled[:-1]]
    assert found == "".join([*wanted, filled[-1]])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{shelf}/none*", r"data: .*/none\*: no file has such a name"),
        ("{shelf}/empty", "data: .*/empty: there is no text in this folder"),
        ("{shelf}/a.txt\0{shelf}/none.txt", r"/none\.txt: no such file"),
        ("{shelf}/a.txt\0{shelf}/photo.JPG", r"/photo\.JPG: not UTF-8 text: byte 0xff at "),
    ],
)
def test_what_is_not_there(shelf, name, message):
    (shelf / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        load_text(name.format(shelf=shelf))


def test_a_run_keeps_the_files_that_it_found(shelf, tmp_path, capsys, monkeypatch):
    (shelf / "a.txt").write_text("some words to learn\n" * 20)
    monkeypatch.chdir(shelf)
    command = ["train", "--out", str(tmp_path / "run"), *TINY]
    assert cli.main([*command, "--data", "*.txt", "more"]) == 0
    out = capsys.readouterr().out
    assert "read    a.txt: text, 400 characters\n" in out
    assert f"text    {shelf}/a.txt and 3 more: " in out
    (shelf / "new.txt").write_text("came later")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "--out", "run", "--resume", "--epochs", "2", "--device", "cpu"]) == 0
    assert cli.main(["evaluate", "run", "--ngram", "1", "--device", "cpu"]) == 0
    found = load_checkpoint(tmp_path / "run" / "last.npz").settings.data.split("\0")
    assert found == [str(shelf / name) for name in ("a.txt", "b.txt", "c.txt", "more/d.txt")]
    assert cli.main(["evaluate", "run", "--device", "cpu", "--data", found[0], found[3]]) == 0
    (shelf / "b.txt").write_text("changed")
    capsys.readouterr()
    assert cli.main(["train", "--out", "run", "--resume", "--epochs", "3"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "a.txt and 3 more is not the text that the checkpoint was trained on" in line


TEXT = "Grüße aus dem Café, naïve Leser: schöne, ärmliche Füße.\n"
RUSSIAN = "Съешь же ещё этих мягких французских булок, да выпей чаю.\n"


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le", "utf-32", "gb18030"])
def test_an_encoding_that_is_named(tmp_path, encoding):
    path = tmp_path / "book.txt"
    path.write_bytes((TEXT * 3).replace("\n", "\r\n").encode(encoding))
    text = open_text(str(path), Reading(encoding=encoding))
    assert "".join(text.pieces()) == TEXT * 3
    assert text.sha256 == Text.of(TEXT * 3).sha256


@pytest.mark.parametrize("mark", [codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE])
@pytest.mark.parametrize("cuts", [1, 3, 100])
def test_a_mark_of_utf_16_is_enough(mark, cuts):
    name = "utf-16-le" if mark == codecs.BOM_UTF16_LE else "utf-16-be"
    content = mark + TEXT.encode(name)
    pieces = [content[n : n + cuts] for n in range(0, len(content), cuts)]
    assert "".join(Text("book", lambda: pieces).pieces()) == TEXT


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (TEXT.encode("cp1252"), "likely cp1252$"),
        ("„Grüße“".encode("utf-16-le"), "likely utf-16-le$"),
        ("„Grüße“".encode("utf-16-be"), "likely utf-16-be$"),
        (RUSSIAN.encode("cp1251"), "likely of a script other than Latin, such as cp1251"),
        (b"\x89PNG\0\0\x81\x8d", "at position 0$"),
        (b"plain \x81 text", "at position 6$"),
        (b"\x7fELF\2\1\1" + b"\0" * 9 + b"\3\0\x3e\0\xd0\0", "at position 20$"),
    ],
)
def test_the_likely_encoding_is_named(content, wanted):
    with pytest.raises(InputError, match=wanted):
        list(Text("book", lambda: [content]).pieces())


def test_a_wrong_byte_in_another_encoding():
    with pytest.raises(InputError, match="book: not ascii text: byte 0xc3 at position 2$"):
        list(Text("book", lambda: [b"ab\xc3"], "ascii").pieces())


@pytest.mark.parametrize("name", ["none", "hex", "rot13", "", "a\0b", "ä"])
def test_what_is_no_encoding(name):
    with pytest.raises(InputError, match="encoding: got .*, wanted a name such as utf-8"):
        Settings(encoding=name)
