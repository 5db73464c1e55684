"""The command line: what it prints, what it returns, what it leaves behind."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
from cli_calls import QUICK, TINY, call, document, fails

from fastrnn.lm import data, preset, runs
from fastrnn.lm.command import commands, display
from fastrnn.lm.ngram import NGram
from fastrnn.lm.training.checkpoint import load_checkpoint


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


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_resume(dtype, capsys, book, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = ["train", "--data", book, *TINY, "--validation", "0", "--dtype", dtype]
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


def test_a_run_in_float16_writes_and_is_measured(capsys, book, tmp_path):
    options = ["--data", book, *TINY, "--dtype", "float16", "--tie-weights", "--embed", "16"]
    assert call(capsys, "train", *options, "--out", tmp_path)[0] == 0
    (row,) = load_checkpoint(tmp_path / "best.npz").progress.rows[-1:]
    code, out, _ = call(capsys, "evaluate", tmp_path, "--metric", "nats", *QUICK)
    assert code == 0
    # In float32 the same parameters predict as well.
    assert float(re.search(r"([\d.]+) nats per", out[0])[1]) == pytest.approx(
        row["validation"], rel=0.01
    )
    for command in (["generate", tmp_path, "--length", "9"], ["suggest", tmp_path, "of"]):
        code, out, err = call(capsys, *command)
        assert (code, err) == (0, [])
        assert out


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
