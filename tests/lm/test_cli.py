"""The command line: what it prints, what it returns, what it leaves behind."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import json
import math
import os
import pty
import re
import resource
import signal
import struct
import subprocess
import sys
import termios
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

from fastrnn import cli
from fastrnn.lm import data, preset, runs
from fastrnn.lm.command import commands, display
from fastrnn.lm.ngram import NGram
from fastrnn.lm.training.checkpoint import load_checkpoint

TEXT = data.load_text("builtin")[:3000]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
TINY = ["--hidden", "16", "--embed", "8", "--batch", "4", "--steps", "20", "--epochs", "2"]
# An evaluation without what takes its time.
QUICK = ["--keystrokes", "0"]
TINY += ["--sample", "30", "--device", "cpu"]
LONG = "a" * 300
# One for each way in which commands write: while they train, in the end, bit by bit, and argparse.
COMMANDS = ["train", "evaluate", "generate", "--help"]


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    path = tmp_path_factory.mktemp("book") / "book.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(book):
    """The folder of a finished run."""
    folder = book.parent / "run"
    assert cli.main(["train", "--data", str(book), "--out", str(folder), *TINY]) == 0
    return folder


def call(capsys, *arguments):
    """Exit code, lines of stdout, lines of stderr."""
    try:
        code = cli.main([str(argument) for argument in arguments])
    except SystemExit as leave:
        code = leave.code
    captured = capsys.readouterr()
    return code, captured.out.splitlines(), captured.err.splitlines()


def fails(capsys, *arguments):
    """The one line on stderr of a command that fails."""
    code, _, err = call(capsys, *arguments)
    assert code == 2
    assert len(err) == 1
    return err[0]


def test_train_prints_loss_baseline_and_sample(capsys, book, tmp_path):
    folder = tmp_path / "run"
    options = ["--data", book, "--out", folder, *TINY, "--ngram", "3"]
    code, out, err = call(capsys, "train", *options)
    assert (code, err) == (0, [])
    text = "\n".join(out)
    assert "2,700 characters to train on, 300 to validate on" in text
    assert ", 1 layer of 16; " in text
    assert "epoch 1/2   train " in text
    assert "epoch 2/2   train " in text
    assert "validation  " in text
    assert " bits per character, in epoch 2" in text
    assert "bits per character, by counting, with 3 characters of context" in text
    assert f"kept in {folder}: best.npz, last.npz, log.csv" in text
    shown = text.replace(str(book), "book.txt").replace(str(folder), "run")
    assert max(map(len, shown.splitlines())) < 120


def test_a_profile_keeps_nothing(capsys, book, tmp_path):
    folder = tmp_path / "run"
    arguments = ["train", "--profile", "--data", book, "--out", folder, *TINY]
    code, out, err = call(capsys, *arguments)
    assert (code, err) == (0, [])
    assert any(line.startswith("threads ") for line in out)
    assert out[-1].startswith("undisturbed ")
    assert not folder.exists()


@pytest.mark.parametrize("there", [False, True])
def test_without_matplotlib_a_line_says_so(capsys, book, tmp_path, monkeypatch, there):
    if there and not runs.can_plot():
        pytest.skip("matplotlib is not installed")
    for module in (runs, commands):
        monkeypatch.setattr(module, "can_plot", lambda: there)
    code, out, err = call(capsys, "train", "--data", book, "--out", tmp_path / "run", *TINY)
    assert (code, err) == (0, [])
    assert sum("no loss.png without matplotlib" in line for line in out) == (not there)
    assert (tmp_path / "run" / "loss.png").exists() == there


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


def test_no_loss_is_less_than_zero(capsys, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a" * 300)
    options = ["--data", path, "--out", tmp_path / "run", *TINY, "--ngram", "1"]
    code, out, _ = call(capsys, "train", *options)
    assert code == 0
    assert any("0.000 bits per character" in line for line in out)
    assert not any("-0.000" in line for line in out)
    for nats in (-0.0, -1e-6, 1e-6):
        assert display.figure(nats, preset("demo")) == "0.000"


def test_tokens_are_shown_as_they_are():
    shown = ["हि", "👩\u200d🚀", "שָׁלוֹם", "\u200f", " ", "\n", "\x1b", "'"]
    quoted = ["'हि'", "'👩\u200d🚀'", "'שָׁלוֹם'", r"'\u200f'", "' '", r"'\n'", r"'\x1b'", '"\'"']
    assert [display.quoted(token) for token in shown] == quoted


def test_long_words_are_not_broken_over_lines():
    text = "हिन्दी" * 30
    assert display.wrapped(f"a {text} b\nc") == f"a\n{text}\nb\nc"


@pytest.mark.parametrize("command", ["train", "evaluate", "generate", "suggest", "check", "info"])
def test_help_shows_examples(capsys, command):
    code, out, err = call(capsys, command, "--help")
    assert (code, err) == (0, [])
    assert f"  fastrnn {command}" in "\n".join(out)


def test_help_lists_the_commands(capsys):
    code, out, _ = call(capsys, "--help")
    assert code == 0
    for command in ("train", "evaluate", "generate", "suggest", "check", "info"):
        assert any(line.strip().startswith(command) for line in out)


def test_version(capsys):
    assert call(capsys, "--version")[1][0].startswith("fastrnn ")


def test_resume(capsys, book, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = ["train", "--data", book, *TINY, "--validation", "0"]
    assert call(capsys, *options, "--out", whole, "--epochs", "3")[0] == 0
    assert call(capsys, *options, "--out", parts, "--epochs", "1")[0] == 0
    resume = ["train", "--out", parts, "--resume", "--device", "cpu"]
    code, out, _ = call(capsys, *resume, "--epochs", "3")
    assert code == 0
    assert not any("epoch 1/3" in line for line in out)
    one, other = (load_checkpoint(folder / "last.npz") for folder in (whole, parts))
    for name, value in one.parameters.items():
        assert value.tobytes() == other.parameters[name].tobytes()
    assert "hidden: the run to resume has 16, got 17" in fails(capsys, *resume, "--hidden", "17")


def test_evaluate(capsys, run, book, tmp_path):
    code, out, err = call(capsys, "evaluate", run, "--ngram", "3", *QUICK)
    assert (code, err) == (0, [])
    assert "bits per character" in out[0]
    assert f"characters: validation part of {book}" in out[0]
    assert "by counting, with 3 characters of context" in out[1]
    best = min(row["validation"] for row in load_checkpoint(run / "last.npz").progress.rows)
    code, out, _ = call(capsys, "evaluate", run / "best.npz", "--metric", "nats")
    assert f" {best:.3f} nats per character, on " in out[0]
    other = tmp_path / "other.txt"
    other.write_text("of the the object\n" * 20)
    options = ["--data", other, "--metric", "perplexity", *QUICK]
    code, out, _ = call(capsys, "evaluate", run, *options)
    assert code == 0
    assert "perplexity" in out[0]
    line = fails(capsys, "evaluate", run, "--from", "Ada Example")
    assert "encoding, format and from: they are for a text that --data names" in line
    assert "split: got 'test', but the" in fails(capsys, "evaluate", run, "--split", "test")


def test_a_run_knows_its_text_from_any_folder(capsys, book, tmp_path, monkeypatch):
    monkeypatch.chdir(book.parent)
    assert call(capsys, "train", "--data", "book.txt", "--out", tmp_path / "run", *TINY)[0] == 0
    monkeypatch.chdir(tmp_path)
    assert call(capsys, "evaluate", "run", "--ngram", "1")[0] == 0
    resume = ["train", "--out", "run", "--resume", "--epochs", "3", "--device", "cpu"]
    assert call(capsys, *resume)[0] == 0


def test_the_demo_beats_counting(capsys, tmp_path):
    """Two of its ten epochs do; the figure to beat is the n-gram model's on the same tokens."""
    options = ["--epochs", "2", "--sample", "0", "--device", "cpu"]
    code, out, _ = call(capsys, "train", "--preset", "demo", "--out", tmp_path, *options)
    assert code == 0
    found = re.findall(r"^(validation|n-gram) +([0-9.]+) bits", "\n".join(out), re.MULTILINE)
    shown = {name: float(bits) for name, bits in found}
    assert shown["validation"] < shown["n-gram"]

    text = data.load_text("builtin")
    vocabulary = load_checkpoint(tmp_path / "best.npz").vocabulary
    cut = len(text) - round(len(text) / 10)
    train, validation = vocabulary.encode(text[:cut]), vocabulary.encode(text[cut:])
    last = 1 + (len(validation) - 1) // 16 * 16
    counted = NGram(train, 3, len(vocabulary)).evaluate(validation, 1, last)
    assert shown["n-gram"] == pytest.approx(counted / np.log(2), abs=0.001)


def test_generate(capsys, run):
    options = ["generate", run, "--length", "50", "--prompt", "The ", "--seed", "3"]
    code, out, err = call(capsys, *options)
    assert (code, err) == (0, [])
    assert len("\n".join(out)) == 54
    assert "\n".join(out).startswith("The ")
    assert call(capsys, *options)[1] == out
    assert call(capsys, *options[:-1], "4")[1] != out
    options[5] = "\ufeffThe "
    assert call(capsys, *options)[1] == out
    options[5] = "The\r\n"
    assert call(capsys, *options)[1][0] == "The"


def document(capsys, *arguments):
    """What ``--json`` prints, which has no number that JSON does not have."""

    def refuse(name):
        raise AssertionError(name)

    code, out, err = call(capsys, *arguments, "--json")
    assert (code, err, len(out)) == (0, [], 1)
    assert out[0].isascii()
    return json.loads(out[0], parse_constant=refuse)


def test_several_texts(capsys, run):
    options = ["generate", run, "--length", "30", "--prompt", "The ", "--seed", "3"]
    code, out, err = call(capsys, *options, "--count", "2")
    assert (code, err) == (0, [])
    first, second = "\n".join(out).split("\n---\n")
    assert first != second
    assert {len(first), len(second)} == {34}
    assert call(capsys, *options)[1] == first.split("\n")
    found = document(capsys, *options, "--count", "2")
    assert found == {"prompt": "The ", "texts": [first[4:], second[4:]]}
    for count in ("0", "100000000"):
        assert f"count: got {count}, wanted 1 to" in fails(capsys, *options, "--count", count)


def test_a_text_that_stops(capsys, run):
    options = ["generate", run, "--length", "30", "--prompt", "The ", "--seed", "3"]
    whole = "\n".join(call(capsys, *options)[1])
    stop = whole[20]
    wanted = whole[: whole.index(stop, 4)]
    assert "\n".join(call(capsys, *options, "--stop", stop)[1]) == wanted
    assert document(capsys, *options, "--stop", stop)["texts"] == [wanted[4:]]
    assert "stop: got ''" in fails(capsys, *options, "--stop", "")


def test_evaluation_as_json(capsys, run, book):
    _, out, _ = call(capsys, "evaluate", run, "--ngram", "2")
    found = document(capsys, "evaluate", run, "--ngram", "2")
    assert found["text"] == f"validation part of {book}"
    assert found["bits_per_character"] == pytest.approx(found["loss"] / math.log(2))
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))
    assert found["tokens"] == found["characters"]
    assert found["token"] == "character"
    assert 0 < found["first_right"] < found["first_three_right"] < 1
    assert found["ngram"]["context"] == 2
    typed = found["keystrokes"]
    assert typed["saved"] == pytest.approx(1 - typed["keys"] / typed["characters"])
    assert f"{found['bits_per_character']:.3f} bits per character" in out[0]
    assert f"{found['ngram']['loss'] / math.log(2):.3f}" in out[1]
    assert f"{found['perplexity']:.1f} per character" in out[2]
    assert f"{found['first_right']:.1%} of characters" in out[3]
    assert f"{found['first_three_right']:.1%} among the first 3" in out[3]
    assert f"{typed['saved']:.1%} saved" in out[4]
    assert f"the first {typed['words']} words" in out[4]
    assert "keystrokes: got -1" in fails(capsys, "evaluate", run, "--keystrokes", "-1")
    few = document(capsys, "evaluate", run, "--keystrokes", "5")
    assert few["keystrokes"]["words"] == 5
    none = document(capsys, "evaluate", run, "--keystrokes", "0", "--data", book)
    assert (none["keystrokes"], none["ngram"]) == (None, None)


def test_bits_per_character_of_words(capsys, book, tmp_path):
    options = ["--preset", "zaremba-small", "--data", book, "--out", tmp_path / "run", *TINY]
    assert call(capsys, "train", *options, "--validation", "0.3", "--test", "0.1")[0] == 0
    for split in ("validation", "test"):
        found = document(capsys, "evaluate", tmp_path / "run", "--split", split)
        assert found["token"] == "word"
        share = {"validation": 0.3, "test": 0.1}[split]
        # The words that the model does not know count with their own length.
        assert found["characters"] == pytest.approx(share * len(TEXT), rel=0.25)
        bits = found["loss"] / math.log(2) * found["tokens"]
        assert found["bits_per_character"] == pytest.approx(bits / found["characters"])


def test_a_perplexity_that_is_no_number_of_json(capsys, run, monkeypatch):
    real = commands.Evaluation.of

    def wild(*arguments):
        found = real(*arguments)
        return found._replace(scores=found.scores._replace(loss=800.0))

    monkeypatch.setattr(commands.Evaluation, "of", staticmethod(wild))
    assert document(capsys, "evaluate", run, "--keystrokes", "0")["perplexity"] is None


def test_suggestions_as_json(capsys, run):
    found = document(capsys, "suggest", run, "The o", "-k", "3")
    assert found["prefix"] == "The o"
    assert [len(found[key]) for key in ("next", "completions")] == [3, 3]
    _, out, _ = call(capsys, "suggest", run, "The o", "-k", "3")
    shown = [f"  {s['probability']:6.1%}  {s['text']}" for s in found["completions"]]
    assert shown == out[5:]


def test_info_as_json(capsys):
    found = document(capsys, "info")
    assert found["numpy"] == np.__version__
    assert set(found["off"]) <= set(found)


def test_a_log_shows_life(capsys, book, tmp_path):
    code, out, err = call(capsys, "train", "--data", book, "--out", tmp_path / "run", *TINY)
    assert (code, err) == (0, [])
    lines = [line for line in out if re.match(r"epoch [12]/2 +\d+%   loss [0-9.]+, ", line)]
    shares = [int(re.search(r"(\d+)%", line)[1]) for line in lines]
    assert len(lines) == 18
    assert shares[:9] == shares[9:]
    assert all(0 <= share - 10 * n < 10 for n, share in enumerate(shares[:9], 1))


def test_slow_epochs_tell_each_minute(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    training = SimpleNamespace(settings=preset("demo"), progress=SimpleNamespace(epoch=0))
    bar = display.EpochBar(training)
    for done in range(1, 6):
        now[0] += 25
        bar(done, 1000, 1.0, 100.0)
    lines = capsys.readouterr().out.splitlines()
    assert [line[-12:] for line in lines] == ["1 min 15 s".rjust(12)]
    now[0] += 25
    bar(6, 1000, 1.0, 100.0)
    assert "1%   loss 1.443, 100 characters/s   2 min 30 s" in capsys.readouterr().out


def test_suggest(capsys, run):
    code, out, err = call(capsys, "suggest", run, "The o", "-k", "3")
    assert (code, err) == (0, [])
    assert [out[0], out[4]] == ["next", "word"]
    assert len(out) == 8


def test_word_level(capsys, book, tmp_path):
    options = ["--preset", "zaremba-small", "--data", book, "--out", tmp_path / "run", *TINY]
    code, out, _ = call(capsys, "train", *options, "--validation", "0.3")
    assert code == 0
    assert any("perplexity, in epoch" in line for line in out)
    assert call(capsys, "suggest", tmp_path / "run", "the")[0] == 0


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
        (["train", "--hidden", "1000000", "--data", "{book}"], "MXNetError: Check failed"),
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


def test_characters_that_stdout_does_not_have_are_escaped(run, tmp_path, monkeypatch):
    path = tmp_path / "bücher.txt"
    path.write_text("of the the object\n" * 20)
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii"))
    assert cli.main(["evaluate", str(run), "--data", str(path)]) == 0
    assert rb"b\xfccher.txt" in shown.getvalue()


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


def test_interrupt_keeps_the_last_finished_state(book, tmp_path):
    def hear_interrupts():
        # Whoever runs the tests in the background has them ignore it.
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


def started(*arguments, closed=(), **streams):
    """A process of the command; `closed` are descriptors that it does not have."""

    def close():
        for descriptor in closed:
            os.close(descriptor)

    command = [sys.executable, "-m", "fastrnn", *map(str, arguments)]
    return subprocess.Popen(
        command, env=ENVIRONMENT, preexec_fn=close, **streams  # noqa: PLW1509
    )  # fmt: skip


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


def test_a_negative_seed_is_an_error(capsys, run):
    assert "seed: got -1" in fails(capsys, "generate", run, "--seed", "-1")


def test_a_model_that_diverges_in_its_last_update_is_not_kept(capsys, book, tmp_path):
    folder = tmp_path / "run"
    options = [*TINY, "--epochs", "1", "--optimizer", "sgd", "--rate", "1e38", "--steps", "10000"]
    assert "diverged" in fails(capsys, "train", "--data", book, "--out", folder, *options)
    assert not list(folder.glob("*.npz"))
