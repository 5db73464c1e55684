"""The command ``fastrnn keyboard``."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
import webbrowser
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from fastrnn import cli
from fastrnn.lm import InputError, keyboard
from fastrnn.lm.command import commands

SECRET = "xyzzy plugh"


def fails(capsys, *arguments):
    """The one line on stderr of a command that fails."""
    code = cli.main(["keyboard", *map(str, arguments)])
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    (line,) = captured.err.splitlines()
    return line


def started(*runs, **options):
    """The command's process, its first line, and the address in it."""
    pytest.importorskip("uvicorn")
    command = [sys.executable, "-m", "fastrnn", "keyboard", *map(str, runs)]
    process = subprocess.Popen(
        [*command, "--port", "0", "--no-browser", "--device", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        **options,
    )
    line = process.stdout.readline()
    return process, line, line.split()[1]


def ended(process):
    """What the command printed until the end to which Ctrl-C brings it."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    return out.strip()


def test_from_an_exported_chat_to_the_keyboard(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("chat.txt").write_text("".join(
        f"31/12/2020, 23:{minute:02} - {sender}: see you at the sea\n"
        for minute in range(60) for sender in ("Ada Example", "Bob Sample")
    ))  # fmt: skip
    size = ["--hidden", "32", "--epochs", "20", "--batch", "4", "--steps", "20", "--rate", "0.01"]
    own = ["--data", "chat.txt", "--from", "Ada Example", "--out", "runs/chat"]
    assert cli.main(["train", *own, *size, "--validation", "0"]) == 0
    assert "fastrnn keyboard runs/chat" in capsys.readouterr().out
    process, line, address = started(cwd=tmp_path)  # the newest run
    assert line == f"keyboard  {address}  with chat; Ctrl-C ends it\n"
    request = urllib.request.Request(
        f"{address}api/suggest",
        json.dumps({"run": "chat", "before": "see you at the s"}).encode(),
        {"Content-Type": "application/json"},
    )
    (first, *_) = json.load(urllib.request.urlopen(request))["suggestions"]
    assert first["text"] == "sea"
    assert ended(process) == ""


def test_from_the_start_to_ctrl_c(run_folders):
    process, line, address = started(run_folders["letters"])
    assert line == f"keyboard  {address}  with letters; Ctrl-C ends it\n"
    assert address.startswith("http://127.0.0.1:")
    assert b"<title>" in urllib.request.urlopen(address).read()
    body = {"run": "letters", "before": SECRET}
    for name, more in (("suggest", {}), ("generate", {"length": 10_000})):
        request = urllib.request.Request(
            f"{address}api/{name}",
            json.dumps({**body, **more}).encode(),
            {"Content-Type": "application/json"},
        )
        stream = urllib.request.urlopen(request)
        assert stream.read(10)
    slow = socket.create_connection(("127.0.0.1", urlsplit(address).port))
    head = "POST /api/suggest HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    slow.sendall(f"{head}Content-Length: 9\r\nExpect: 100-continue\r\n\r\n".encode())
    assert slow.recv(100).split()[1] == b"100"  # now the body is waited for
    assert ended(process) == ""  # while a text is being written
    stream.close()
    slow.close()


def test_a_port_in_use(capsys, run_folders):
    pytest.importorskip("uvicorn")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        message = fails(capsys, run_folders["letters"], "--port", port, "--no-browser")
    assert message == f"fastrnn: port: {port} is in use; --port 0 takes any that is free"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "65536"], "port: got 65536, wanted 0 to 65535"),
        (["--port", "0", "--host", "no-such-host.invalid"], "host: 'no-such-host.invalid' is not"),
        (["--port", "0", "--device", "tpu"], "device: got 'tpu'"),
    ],
)
def test_options_that_do_not_fit(capsys, run_folders, arguments, message):
    pytest.importorskip("uvicorn")
    line = fails(capsys, run_folders["letters"], "--no-browser", *arguments)
    assert line.startswith(f"fastrnn: {message}")


def test_a_run_that_is_none(capsys, tmp_path):
    pytest.importorskip("uvicorn")
    arguments = ["--port", "0", "--no-browser"]
    assert "there is no such checkpoint" in fails(capsys, tmp_path / "run", *arguments)
    (tmp_path / "best.npz").write_bytes(b"no archive")
    assert "truncated, damaged or no checkpoint" in fails(capsys, tmp_path, *arguments)


def test_no_run_at_all(capsys, tmp_path, monkeypatch):
    pytest.importorskip("uvicorn")
    monkeypatch.chdir(tmp_path)
    line = fails(capsys, "--port", "0", "--no-browser")
    assert line == "fastrnn: RUN: there is no run in runs; `make demo` trains one"


def test_the_newest_run(tmp_path):
    for age, name in enumerate(["new", "older", "oldest"]):
        (tmp_path / name).mkdir()
        (tmp_path / name / "best.npz").touch()
        os.utime(tmp_path / name / "best.npz", (10**9 - age, 10**9 - age))
    (tmp_path / "empty").mkdir()
    assert keyboard.newest_run(tmp_path) == tmp_path / "new"


def test_names_tell_runs_apart(tmp_path):
    runs = [tmp_path / "a" / "demo", tmp_path / "b" / "demo", tmp_path / "book"]
    assert list(keyboard.named(runs)) == ["a/demo", "b/demo", "book"]
    assert list(keyboard.named(runs).values()) == runs
    with pytest.raises(InputError, match="more than once"):
        keyboard.named([Path("a"), Path("b/../a")])


def test_without_the_extra(capsys, run_folders, monkeypatch):
    monkeypatch.setattr(keyboard.importlib.util, "find_spec", lambda name: None)
    line = fails(capsys, run_folders["letters"])
    wanted = "needs starlette and uvicorn, not installed: pip install 'fastrnn[keyboard]'"
    assert line == f"fastrnn: keyboard: {wanted}"


def test_answers_are_not_held_back():
    """Without the protocol's number, asyncio leaves Nagle's algorithm on."""
    with keyboard.listening("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


class Opened:
    def __init__(self, works):
        self.works, self.addresses = works, []

    def open(self, address):
        self.addresses.append(address)
        return self.works


@pytest.mark.parametrize("works", [True, False])
def test_the_browser(capsys, monkeypatch, works):
    browser = Opened(works)
    monkeypatch.setattr(webbrowser, "get", lambda: browser)
    keyboard._open_browser("http://localhost:1/")
    assert browser.addresses == ["http://localhost:1/"]
    err = capsys.readouterr().err
    assert err == ("" if works else "fastrnn: found no browser; open http://localhost:1/ in one\n")


def test_no_browser(capsys, monkeypatch):
    def none():
        raise webbrowser.Error

    for get in (none, lambda: webbrowser.GenericBrowser("lynx")):
        monkeypatch.setattr(webbrowser, "get", get)
        keyboard._open_browser("http://localhost:1/")
        assert capsys.readouterr().err.startswith("fastrnn: found no browser")


def test_arguments_reach_the_server(monkeypatch):
    calls = []
    monkeypatch.setattr(commands, "serve", lambda *arguments: calls.append(arguments))
    assert (
        cli.main(["keyboard", "a", "b", "--host", "0.0.0.0", "--port", "7", "--device", "cpu"]) == 0
    )
    assert cli.main(["keyboard", "--no-browser", "--device", "cpu"]) == 0
    assert [call[:4] for call in calls] == [
        ([Path("a"), Path("b")], "0.0.0.0", 7, True),
        ([], "127.0.0.1", keyboard.PORT, False),
    ]
