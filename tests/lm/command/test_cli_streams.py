"""Pipes, terminals, interrupts, and standard streams that are full or missing."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import zipfile

import pytest
from cli_calls import ENVIRONMENT, QUICK, TEXT, TINY, call, fails, started

from fastrnn import cli
from fastrnn.lm.training import trainer
from fastrnn.lm.training.checkpoint import load_checkpoint

# One for each way in which commands write: while they train, in the end, bit by bit, and argparse.
COMMANDS = ["train", "evaluate", "generate", "--help"]


@pytest.mark.parametrize("how", ["-", "/dev/stdin", "/dev/fd/0"])
def test_a_text_from_a_pipe(capsys, book, tmp_path, how):
    folder = tmp_path / "run"
    done = started("train", "--data", how, "--out", folder, *TINY, stdin=subprocess.PIPE)
    done.communicate(TEXT.encode())
    assert done.returncode == 0
    assert "text came from a pipe, which is gone" in fails(capsys, "evaluate", folder)
    resume = ["train", "--resume", "--out", folder, "--device", "cpu", "--epochs", "3"]
    assert "which is gone: --data can name a file" in fails(capsys, *resume)
    assert call(capsys, *resume, "--data", book)[0] == 0
    assert call(capsys, "evaluate", folder)[0] == 0


def test_a_file_on_standard_input_is_known_later(capsys, book, tmp_path):
    with open(book) as file:
        done = started("train", "--data", "-", "--out", tmp_path / "run", *TINY, stdin=file)
    assert done.wait() == 0
    code, out, _ = call(capsys, "evaluate", tmp_path / "run")
    assert code == 0
    assert f"validation part of {book}" in out[0]


def test_evaluation_of_standard_input(run, book):
    with open(book) as file:
        done = started("evaluate", run, "--data", "-", *QUICK, stdin=file, stdout=subprocess.PIPE)
    assert b"characters: standard input" in done.communicate()[0]


def test_characters_that_stdout_does_not_have_are_escaped(run, tmp_path, monkeypatch):
    path = tmp_path / "bücher.txt"
    path.write_text("of the the object\n" * 20)
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii"))
    assert cli.main(["evaluate", str(run), "--data", str(path)]) == 0
    assert rb"b\xfccher.txt" in shown.getvalue()


def test_interrupt_keeps_the_last_finished_state(book, tmp_path):
    def hear_interrupts():
        # Tests that run in the background ignore it.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    folder = tmp_path / "run"
    options = ["train", "--data", str(book), "--out", str(folder), *TINY, "--epochs", "100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "fastrnn", *options],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=hear_interrupts,  # noqa: PLW1509
    )  # fmt: skip
    for line in process.stdout:
        if line.startswith("epoch ") and " train " in line:  # the first epoch is on the disk
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    epoch = load_checkpoint(folder / "last.npz").progress.epoch
    assert err.split("\n") == [
        "",
        f"fastrnn: interrupted; {folder} has the state after epoch {epoch}, --resume goes on from "
        "it",
        "",
    ]
    assert not list(folder.glob("*.partial"))


def test_an_interrupt_while_an_array_is_freed_is_one(book, tmp_path, monkeypatch, capsys):
    class Freed:
        def __del__(self):
            raise KeyboardInterrupt  # which Python ignores here

    step = trainer.differentiate

    def interrupted(*arguments):
        Freed()
        return step(*arguments)

    monkeypatch.setattr(trainer, "differentiate", interrupted)
    options = ["train", "--data", str(book), "--out", str(tmp_path / "run"), *TINY]
    assert cli.main(options) == 130
    assert capsys.readouterr().err == "\nfastrnn: interrupted\n"


# The archive that could not close says so once more when it is collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_while_saving_is_one(book, tmp_path, monkeypatch, capsys):
    real, opened = zipfile.ZipFile.open, []

    def interrupted(archive, name, mode="r", **options):
        member = real(archive, name, mode, **options)
        if mode == "w" and not opened:
            opened.append(member)
            raise KeyboardInterrupt  # with the member open, the archive does not close
        return member

    training = tmp_path / "run"
    monkeypatch.setattr(zipfile.ZipFile, "open", interrupted)
    options = ["train", "--data", str(book), "--out", str(training), *TINY]
    assert cli.main(options) == 130
    assert opened
    assert capsys.readouterr().err.startswith("\nfastrnn: interrupted")
    assert list(training.iterdir()) == []


def test_progress_bar_on_a_terminal(book, tmp_path):
    pytest.importorskip("tqdm")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    # Small batches, since the bar is drawn ten times a second at most.
    options = ["train", "--data", str(book), "--out", str(tmp_path / "run"), *TINY]
    options += ["--batch", "1", "--steps", "5"]
    with open(tmp_path / "out", "w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "fastrnn", *options], env=ENVIRONMENT, stdout=out, stderr=theirs
        )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # what the terminal's end of file is on Linux
        while True:
            shown += os.read(ours, 4096)
    os.close(ours)
    assert process.wait() == 0
    text = shown.decode()
    assert "epoch 1/2 |" in text
    assert "left, loss " in text
    assert "characters/s" in text
    assert "epoch 2/2 |" in text
    assert "epoch 2/2   train" in (tmp_path / "out").read_text()


@pytest.mark.parametrize("closed", [[0], [1], [2], [0, 1, 2]])
def test_training_without_standard_streams(book, tmp_path, closed):
    folder, output = tmp_path / "run", tmp_path / "output"
    with open(output, "wb") as file:
        process = started("train", "--data", book, "--out", folder, *TINY, closed=closed,
                          stdin=subprocess.DEVNULL, stdout=file, stderr=file)  # fmt: skip
        assert process.wait() == 0
    assert load_checkpoint(folder / "last.npz").progress.epoch == 2
    assert ("kept in" in output.read_text()) == (1 not in closed)
    assert "Traceback" not in output.read_text()


@pytest.mark.parametrize("command", ["evaluate", "generate", "--help"])
def test_commands_without_standard_streams(run, tmp_path, command):
    arguments = [] if command == "--help" else [run]
    assert started(command, *arguments, closed=[0, 1, 2]).wait() == 0


def test_bad_input_without_standard_streams(tmp_path):
    assert started("generate", tmp_path / "none", closed=[0, 1, 2]).wait() == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_the_reader_of_the_output_leaves(run, book, tmp_path, command):
    arguments = {
        "train": ["--data", book, "--out", tmp_path / "run", *TINY],
        "generate": [run, "--length", "20000"],
        "evaluate": [run],
    }
    reader, writer = os.pipe()
    process = started(command, *arguments.get(command, []), stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    if command == "generate":
        assert os.read(reader, 10)
    os.close(reader)
    assert process.communicate()[1] == b""
    assert process.returncode == 128 + signal.SIGPIPE


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_behind_stdout_is_one_line(run, book, tmp_path, command):
    arguments = {
        "train": ["--data", book, "--out", tmp_path / "run", *TINY],
        "evaluate": [run],
        "generate": [run],
    }
    with open("/dev/full", "w") as full:
        process = started(command, *arguments.get(command, []), stdout=full, stderr=subprocess.PIPE)
    error = process.communicate()[1].decode()
    assert error.splitlines() == ["fastrnn: [Errno 28] No space left on device"]
    assert process.returncode == 2


@pytest.mark.parametrize("arguments", [["fly"], ["generate", "none"]])
def test_a_full_disk_behind_stderr_keeps_the_exit_code(arguments):
    with open("/dev/full", "w") as full:
        assert started(*arguments, stderr=full).wait() == 2
