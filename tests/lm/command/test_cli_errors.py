"""Commands that fail: one line says why, and nothing is left behind."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys

import pytest
from cli_calls import ENVIRONMENT, TINY, call, fails

LONG = "a" * 300


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "arguments are required: COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["train", "--hidden", "many"], "invalid int value: 'many'"),
        (["train", "--hidden", "0"], "hidden: got 0, wanted at least 1"),
        (["train", "--cell", "elman"], "invalid choice: 'elman'"),
        (["train", "--device", "tpu"], "device: got 'tpu', wanted cpu, gpu"),
        (["train", "--device", "gpu:97"], "device: got 'gpu:97', but MXNet sees"),
        (["train", "--device", "cpu:1,1"], "names a device twice"),
        (
            ["generate", "{run}", "--device", "cpu:5000000000"],
            "device: got 'cpu:5000000000', wanted",
        ),
        (["train", "--data", ""], "data: got '', wanted"),
        (["train", "--data", "none.txt"], "none.txt: no such file"),
        (["train", "--data", "{tmp}/empty"], "the file is empty"),
        (["train", "--data", "{tmp}/short"], "too short"),
        (["train", "--data", "{tmp}/binary"], "not UTF-8 text: byte 0xff at position 1"),
        (["train", "--resume"], "there is no such checkpoint"),
        (["train", "--resume", "--overwrite"], "only one of them"),
        (["train", "--resume", "--preset", "demo"], "resume and preset: the run keeps its"),
        (["train", "--hidden", "100000000", "--data", "{book}"], "MXNetError: Check failed"),
        (["train", "--data", LONG], "cannot be read: File name too long"),
        (["train", "--out", LONG, "--data", "{book}"], "cannot be written to: File name too"),
        (["train", "--out", "{tmp}/short/run", "--data", "{book}"], "written to: Not a directory"),
        (["generate", LONG], "cannot be read: File name too long"),
        (["generate", "{tmp}/none"], "there is no such checkpoint"),
        (["generate", "{tmp}/short"], "truncated, damaged or no checkpoint"),
        (["generate", "{run}", "--prompt", "naïve"], "the character 'ï' (U+00EF) at position 2"),
        (["generate", "{run}", "--temperature", "-1"], "temperature: got -1.0"),
        (["suggest", "{run}", "The", "-k", "0"], "k: got 0"),
        (["evaluate", "{run}", "--data", "{tmp}/foreign"], "no character that the model knows"),
    ],
)
def test_bad_input(capsys, tmp_path, monkeypatch, run, book, arguments, message):
    monkeypatch.chdir(tmp_path)
    for name, content in {
        "empty": b"",
        "short": b"ab",
        "binary": b"a\xff",
        "foreign": "ß".encode() * 30,
    }.items():
        (tmp_path / name).write_bytes(content)
    before = sorted(tmp_path.rglob("*"))
    filled = [a.format(tmp=tmp_path, run=run, book=book) for a in arguments]
    assert message in fails(capsys, *filled)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_backend_that_does_not_exist(capsys, book, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTRNN_BACKEND", "foo")
    options = ["train", "--data", book, "--out", tmp_path / "run", *TINY]
    assert "FASTRNN_BACKEND: expected one of auto" in fails(capsys, *options)


def test_a_folder_that_takes_no_files_is_noticed_before_the_first_epoch(capsys, book):
    code, out, err = call(capsys, "train", "--data", book, "--out", "/proc", *TINY)
    assert (code, out) == (2, [])
    assert "out: /proc: cannot be written to" in err[0]


@pytest.mark.parametrize("command", ["train", "suggest x y"])
def test_without_mxnet_one_line_names_the_extras(command):
    code = f"""
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "mxnet" else find(name, *rest)
sys.argv = ["fastrnn", *{command.split()}]
from fastrnn.cli import main
sys.exit(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "pip install 'fastrnn[cpu]'" in done.stderr


def test_a_run_is_not_overwritten_unasked(capsys, run, book):
    options = ["train", "--data", book, "--out", run, *TINY]
    before = (run / "last.npz").read_bytes()
    assert "already holds a run; use --resume" in fails(capsys, *options)
    assert (run / "last.npz").read_bytes() == before


def test_full_disk(capsys, run, book, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    options = ["train", "--data", book, "--out", tmp_path / "run", *TINY]
    assert "best.npz: not written: no space left on the disk" in fails(capsys, *options)
    assert list((tmp_path / "run").iterdir()) == []


def test_the_system_refuses_to_write(run, book, tmp_path):
    """A limit on the size of files stands for a disk that is full, past all that Python does."""
    limit = 20_000

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    options = ["train", "--data", str(book), "--out", str(tmp_path / "run"), *TINY]
    done = subprocess.run(
        [sys.executable, "-m", "fastrnn", *options],
        env=ENVIRONMENT, preexec_fn=limited, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"fastrnn: {tmp_path / 'run' / 'best.npz'}: not written: File too large"
    ]
    assert list((tmp_path / "run").iterdir()) == []


def test_a_negative_seed_is_an_error(capsys, run):
    assert "seed: got -1" in fails(capsys, "generate", run, "--seed", "-1")


def test_a_model_that_diverges_in_its_last_update_is_not_kept(capsys, book, tmp_path):
    folder = tmp_path / "run"
    options = [*TINY, "--epochs", "1", "--optimizer", "sgd", "--rate", "1e38", "--steps", "10000"]
    assert "diverged" in fails(capsys, "train", "--data", book, "--out", folder, *options)
    assert not list(folder.glob("*.npz"))
