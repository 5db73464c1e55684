"""What ``--json`` prints."""

from __future__ import annotations

import math

import numpy as np
import pytest
from cli_calls import TEXT, TINY, call, document, fails

from fastrnn.lm.command import commands


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
