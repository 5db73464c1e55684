"""Texts by name or path."""

from __future__ import annotations

import hashlib
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from fastrnn.lm import InputError, data

CONTENT = b"Thus spoke the server.\r\n"


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A cache and a folder for FASTRNN_DATA, both empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FASTRNN_DATA", str(tmp_path / "given"))
    (tmp_path / "given").mkdir()
    return tmp_path / "cache" / "fastrnn", tmp_path / "given"


@pytest.fixture
def server(monkeypatch):
    """Serves CONTENT; the list holds the paths that were asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200 if self.path == "/nietzsche" else 404)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, *args):
            pass

    http = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    base = f"http://127.0.0.1:{http.server_port}"
    digest = hashlib.sha256(CONTENT).hexdigest()
    for name in data.SOURCES:
        monkeypatch.setitem(data.SOURCES, name, data.Source(f"{base}/{name}", digest))
    yield asked
    http.shutdown()
    thread.join()
    http.server_close()


def test_public_addresses_are_https():
    assert all(source.url.startswith("https://") for source in data.SOURCES.values())


def test_download_once(server, places):
    assert data.load_text("nietzsche") == "Thus spoke the server.\n"
    assert data.load_text("nietzsche") == "Thus spoke the server.\n"
    assert server == ["/nietzsche"]
    assert [path.name for path in places[0].iterdir()] == ["nietzsche.txt"]


def test_given_folder_comes_first(server, places):
    (places[1] / "nietzsche.txt").write_bytes(CONTENT)
    data.load_text("nietzsche")
    assert server == []
    assert not places[0].exists()


def test_wrong_checksum_of_a_download(server, places, monkeypatch):
    url = data.SOURCES["nietzsche"].url
    monkeypatch.setitem(data.SOURCES, "nietzsche", data.Source(url, "0" * 64))
    with pytest.raises(InputError, match="wrong checksum: SHA-256 is .*, wanted 0000"):
        data.load_text("nietzsche")
    assert not list(places[0].parent.rglob("*.txt*"))


@pytest.mark.parametrize("place", [0, 1])
def test_wrong_checksum_of_a_file(server, places, place):
    places[place].mkdir(parents=True, exist_ok=True)
    (places[place] / "nietzsche.txt").write_bytes(CONTENT + b"!")
    with pytest.raises(InputError, match=r"nietzsche\.txt: wrong checksum"):
        data.load_text("nietzsche")


def test_unreadable_file(server, places):
    (places[1] / "nietzsche.txt").mkdir()
    with pytest.raises(InputError, match=r"nietzsche\.txt: cannot be read: Is a directory"):
        data.load_text("nietzsche")
    assert server == []


def test_download_fails(server, places):
    with pytest.raises(InputError, match="tinyshakespeare: could not be downloaded .*Not Found"):
        data.load_text("tinyshakespeare")
    assert not list(places[0].parent.rglob("*.txt*"))


def test_nobody_listens(places, monkeypatch):
    source = data.Source("http://127.0.0.1:9/none", "0" * 64)
    monkeypatch.setitem(data.SOURCES, "nietzsche", source)
    with pytest.raises(InputError, match="could not be downloaded .*FASTRNN_DATA"):
        data.load_text("nietzsche")


def test_file(tmp_path):
    path = tmp_path / "book.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree\n")
    assert data.load_text(str(path)) == "one\ntwo\nthree\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"abc\xff", "not UTF-8 text: byte 0xff at position 3"),
        (None, "no such file"),
    ],
)
def test_bad_file(tmp_path, content, message):
    path = tmp_path / "book.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        data.load_text(str(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [("", "data: got ''"), (data.PIPE, "text came from a pipe, which is gone: --data can name")],
)
def test_no_name_of_a_text(name, message):
    with pytest.raises(InputError, match=message):
        data.load_text(name)


def test_names_that_last(tmp_path, monkeypatch):
    path, fifo = tmp_path / "book.txt", tmp_path / "fifo"
    path.write_text("a text")
    os.mkfifo(fifo)
    monkeypatch.chdir(tmp_path)
    assert data.lasting("nietzsche") == "nietzsche"
    assert data.lasting("book.txt") == str(path)
    assert data.lasting("fifo") == data.PIPE
    with open(path) as file:
        assert data.lasting(f"/dev/fd/{file.fileno()}") == str(path)
    reader, writer = os.pipe()
    assert data.lasting(f"/dev/fd/{reader}") == data.PIPE
    os.close(reader)
    os.close(writer)


def test_builtin_is_prose():
    text = data.load_text("builtin")
    paragraphs = text.splitlines()
    assert len(text) > 150_000
    assert text.isascii()
    assert len(set(paragraphs)) == len(paragraphs)
    assert not any(code in text for code in (">>>", "::=", "****"))


def test_builtin_leaves_out_code_and_repetitions():
    prose = "A “sentence” that is long enough to stay, over two pre-\nexisting lines."
    topics = {
        "b": prose,
        "a": f"Title\n*****\n\n   >>> f(x)\n\n{prose}\n\n   x = [1, 2]; y = (3, 4)",
    }
    assert data.builtin_text(topics) == (
        'A "sentence" that is long enough to stay, over two pre-existing lines.\n'
    )


@pytest.mark.parametrize(
    ("name", "characters", "unique"),
    [("nietzsche", 600_893, 84), ("tinyshakespeare", 1_115_394, 65)],
)
def test_the_real_texts(name, characters, unique):
    folder = os.environ.get("FASTRNN_DATA")
    if not folder or not (Path(folder) / f"{name}.txt").is_file():
        pytest.skip(f"FASTRNN_DATA names no folder with {name}.txt")
    text = data.load_text(name)
    assert (len(text), len(set(text))) == (characters, unique)
