"""Unknown tokens, and parts of a text that have files of their own."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrnn import cli
from fastrnn.lm import InputError, Settings, Vocabulary, preset
from fastrnn.lm.data.corpus import encode_corpus, encode_text, fingerprint
from fastrnn.lm.data.texts import Text
from fastrnn.lm.generation import Writer
from fastrnn.lm.tokenizers import UNKNOWN, CharacterTokenizer

CHARACTERS = CharacterTokenizer()
TINY = ["--hidden", "16", "--embed", "8", "--batch", "2", "--steps", "20", "--epochs", "1"]
TINY += ["--sample", "30", "--device", "cpu"]
RARE = "plain words, 😀 and more words\n"


@given(st.text("abcé😀\n", min_size=1), st.integers(2, 4))
def test_rare_characters_are_unknown(text, least):
    vocabulary = Vocabulary.build(text, CHARACTERS, least)
    kept = sorted(c for c in set(text) if text.count(c) >= least)
    assert vocabulary.tokens == (*kept, UNKNOWN)
    numbers = vocabulary.encode(text + "ß\U0010ffff")
    shown = [c if c in kept else UNKNOWN for c in text] + [UNKNOWN] * 2
    assert vocabulary.decode(numbers) == "".join(shown)
    assert vocabulary.unknown(numbers) == shown.count(UNKNOWN)
    assert Vocabulary.from_json(vocabulary.to_json()) == vocabulary


def test_characters_are_counted_in_the_training_part():
    settings = Settings(min_count=2, validation=0.5)
    vocabulary = encode_corpus("aabbabcccc", settings.updated({"validation": 0.4})).vocabulary
    assert vocabulary.tokens == ("a", "b", UNKNOWN)
    assert encode_corpus("abc", Settings()).vocabulary.tokens == ("a", "b", "c")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose text has a rare character."""
    folder = tmp_path_factory.mktemp("rare")
    (folder / "book.txt").write_text("plain words and more words\n" * 20 + RARE)
    command = ["train", "--data", str(folder / "book.txt"), "--out", str(folder / "run")]
    assert cli.main([*command, "--min-count", "2", "--validation", "0", *TINY]) == 0
    return folder / "run"


def test_a_prompt_with_unknown_characters(run, capsys):
    writer = Writer.from_checkpoint(run)
    assert UNKNOWN in writer.vocabulary
    assert "😀" not in writer.vocabulary
    for temperature in (0, 1, 100):
        written = "".join(writer.generate("好😀", 300, temperature=temperature, seed=1))
        assert len(written) == 300
        assert UNKNOWN not in written
    found = writer.suggest("😀 wo", 30)
    assert all(s.text != UNKNOWN for s in found.next)
    assert found.completions
    assert not any(UNKNOWN in s.text for s in found.completions)
    assert cli.main(["generate", str(run), "--prompt", "好", "--length", "5"]) == 0
    assert cli.main(["suggest", str(run), "好 wor"]) == 0
    assert capsys.readouterr().err == ""


def test_evaluation_says_how_much_is_unknown(run, tmp_path, capsys):
    (tmp_path / "other.txt").write_text("plain wörds\n" * 10)
    capsys.readouterr()
    assert cli.main(["evaluate", str(run), "--data", str(tmp_path / "other.txt")]) == 0
    out = capsys.readouterr().out
    assert "unknown     10 of 120 characters (8.3%)\n" in out
    assert cli.main(["train", "--resume", "--out", str(run), "--epochs", "2"]) == 0


def test_evaluation_passes_over_what_has_no_marker(run, tmp_path, capsys):
    """Of a model of characters that has no unknown ones."""
    book, other, known = (tmp_path / name for name in ("book.txt", "other.txt", "known.txt"))
    book.write_text("plain words and more words\n" * 20)
    known.write_text("plain wrds\n" * 10)
    other.write_text("\ufeff" + "plain wörds\n" * 10)
    command = ["train", "--data", str(book), "--out", str(tmp_path / "run")]
    assert cli.main([*command, "--validation", "0", *TINY]) == 0
    capsys.readouterr()
    told = []
    for file in (known, other):
        command = ["evaluate", str(tmp_path / "run"), "--data", str(file)]
        assert cli.main(command) == 0
        line = "unknown     10 of 120 characters (8.3%), passed over\n"
        assert (line in capsys.readouterr().out) == (file is other)
        assert cli.main([*command, "--json"]) == 0
        told.append(json.loads(capsys.readouterr().out))
    assert [values.pop("unknown") for values in told] == [0, 10]
    assert [values.pop("text") for values in told] == [str(known), str(other)]
    assert told[0] == told[1]
    other.write_text("ÄÖÜ")
    assert cli.main(command) == 2
    assert "there is no character that the model knows" in capsys.readouterr().err


def test_nothing_is_frequent_enough(tmp_path, capsys):
    (tmp_path / "book.txt").write_text("abcdefghijklmnopqrstuvwxyz" * 4)
    command = ["train", "--data", str(tmp_path / "book.txt"), "--out", str(tmp_path / "run")]
    assert cli.main([*command, *TINY, "--min-count", "99"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(
        "min_count: got 99, but no character is that frequent in the training part"
    )
    assert not (tmp_path / "run").exists()


@pytest.fixture
def parts(tmp_path):
    """Files for the three parts."""
    for name, text in {"train": "abc ab " * 30, "valid": "ab c" * 9, "test": "abd " * 9}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    return tmp_path


def split(parts, **changes):
    return Settings().updated(
        {
            "data": str(parts / "train.txt"),
            "validation_data": str(parts / "valid.txt"),
            "test_data": str(parts / "test.txt"),
            **changes,
        }
    )


@pytest.mark.parametrize("level", ["character", "word"])
def test_parts_in_files(parts, level):
    settings = split(parts, level=level, min_count=2)
    assert (settings.validation, settings.test) == (0, 0)
    corpus = encode_corpus((parts / "train.txt").read_text(), settings)
    vocabulary = corpus.vocabulary
    for part, name in (("train", "train"), ("validation", "valid"), ("test", "test")):
        text = (parts / f"{name}.txt").read_text()
        assert getattr(corpus, part).tolist() == vocabulary.encode(text).tolist()
    assert vocabulary.unknown(corpus.test) == 9
    assert vocabulary.unknown(corpus.validation) == (9 if level == "word" else 0)


def test_a_share_of_the_text_beside_a_file(parts):
    settings = split(parts, test_data="", test=0.5)
    corpus = encode_corpus((parts / "train.txt").read_text(), settings)
    assert (len(corpus.train), len(corpus.validation), len(corpus.test)) == (105, 36, 105)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validation": 0.1}, "validation and validation_data: got 0.1 and .*valid"),
        ({"test": 0.1}, "test and test_data: got 0.1 and .*test"),
        ({"min_count": 1}, "test_data: .*test.txt: the character 'd' .* --min-count 2"),
        ({"validation_data": "none"}, "validation_data: got none, wanted a file that is there"),
        ({"validation_data": "fifo"}, "validation_data: got fifo, wanted a file .* no pipe"),
    ],
)
def test_bad_parts(parts, monkeypatch, changes, message):
    monkeypatch.chdir(parts)
    os.mkfifo("fifo")
    with pytest.raises(InputError, match=message):
        encode_corpus("abc " * 20, split(parts, **{"min_count": 2, **changes}))


def test_a_part_without_its_file_is_named_as_the_user_does(parts, capsys):
    command = ["train", "--data", str(parts / "train.txt"), "--validation-data", "none"]
    assert cli.main([*command, "--out", str(parts / "run"), *TINY]) == 2
    assert "validation_data: got none, wanted a file that is there" in capsys.readouterr().err
    assert not (parts / "run").exists()


def test_a_file_takes_the_place_of_the_presets_share(parts):
    assert preset("demo", validation_data="x").validation == 0
    with pytest.raises(InputError, match="validation and validation_data"):
        preset("demo", validation_data="x", validation=0.1)


def test_every_part_is_in_the_fingerprint(parts):
    text = Text.of("abc")
    found = {
        fingerprint(text, split(parts)),
        text.sha256,
        fingerprint(Text.of("abd"), split(parts)),
    }
    found |= {
        fingerprint(text, split(parts, **{name: ""})) for name in ("validation_data", "test_data")
    }
    (parts / "test.txt").write_text("other")
    assert len(found | {fingerprint(text, split(parts))}) == 6
    assert fingerprint(text, Settings()) == text.sha256


def test_a_run_with_parts_in_files(parts, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(parts)
    command = ["train", "--data", "train.txt", "--validation-data", "valid.txt"]
    command += ["--test-data", "test.txt", "--min-count", "2", "--out", "run", *TINY]
    assert cli.main(command) == 0
    out = capsys.readouterr().out
    assert "210 characters to train on, 36 to validate on, 36 to test on" in out
    (parts / "elsewhere").mkdir()
    monkeypatch.chdir(parts / "elsewhere")
    again = ["train", "--out", "../run", "--resume", "--epochs", "2", "--device", "cpu"]
    assert cli.main(again) == 0
    evaluated = ["evaluate", "../run", "--split", "test", "--ngram", "2", "--device", "cpu"]
    assert cli.main(evaluated) == 0
    assert "on 35 characters: test part of" in capsys.readouterr().out
    (parts / "valid.txt").write_text("ab")
    assert cli.main([*again[:-3], "3"]) == 2
    assert "is not the text that the checkpoint was trained on" in capsys.readouterr().err
    monkeypatch.chdir(parts)
    assert cli.main([*command, "--out", "other"]) == 2
    assert "--validation-data wants a longer text" in capsys.readouterr().err
    assert cli.main([*command, "--out", "other", "--validation", "0.1"]) == 2
    assert "validation and validation_data: got 0.1 and valid.txt" in capsys.readouterr().err
    assert not (parts / "other").exists()


def test_the_numbers_of_a_text_with_unknown_characters_are_kept_apart(tmp_path, monkeypatch):
    from fastrnn.lm.data import corpus

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(corpus, "CACHED_BYTES", 0)
    for least in (1, 2, 3, 2, 1):
        found = encode_corpus(RARE, Settings(min_count=least, validation=0))
        assert found.vocabulary == Vocabulary.build(RARE, CHARACTERS, least)
        assert found.train.tolist() == found.vocabulary.encode(RARE).tolist()
    assert len(list((tmp_path / "fastrnn" / "numbers").iterdir())) == 3
    known = encode_text(Text.of("好"), found.vocabulary.build(RARE, CHARACTERS, 2))
    assert known.tolist() == [len(Vocabulary.build(RARE, CHARACTERS, 2)) - 1]


def test_what_is_typed_of_a_part_is_its_files(parts, monkeypatch, capsys):
    """Suggestions are counted in the text of the file, not at that place of the training text."""
    monkeypatch.chdir(parts)
    (parts / "test.txt").write_text("zz zz zz zz zz zz\n")
    command = ["train", "--data", "train.txt", "--validation-data", "valid.txt", "--out", "run"]
    assert cli.main([*command, "--test-data", "test.txt", "--min-count", "2", *TINY]) == 0
    capsys.readouterr()
    assert cli.main(["evaluate", "run", "--split", "test", "--json", "--device", "cpu"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["unknown"] == 13
    assert found["keystrokes"] == {"words": 6, "characters": 17, "keys": 17, "saved": 0}
