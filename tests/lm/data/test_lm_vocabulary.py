"""Vocabularies, and what tokenizers have in common."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrnn.lm import InputError, Vocabulary
from fastrnn.lm.tokenizers import (
    END_OF_LINE,
    UNKNOWN,
    CharacterTokenizer,
    WhitespaceTokenizer,
    WordTokenizer,
    normalize,
)

CHARACTERS, WORDS, PIECES = CharacterTokenizer(), WordTokenizer(), WhitespaceTokenizer()
TEXT = st.text(st.characters(blacklist_categories=["Cs"])).map(normalize).filter(bool)


@given(TEXT)
def test_characters_come_back(text):
    vocabulary = Vocabulary.build(text, CHARACTERS)
    numbers = vocabulary.encode(text)
    assert numbers.dtype == np.int32
    assert vocabulary.decode(numbers) == text
    assert len(vocabulary) == len(set(text))
    assert sorted(set(numbers.tolist())) == list(range(len(vocabulary)))


@given(TEXT)
def test_json_keeps_the_vocabulary(text):
    for built in (
        Vocabulary.build(text, CHARACTERS),
        Vocabulary.build(WORDS.tokenize(text), WORDS),
    ):
        back = Vocabulary.from_json(built.to_json())
        assert back == built
        assert back.tokenizer == built.tokenizer


def test_vocabulary_file(tmp_path):
    vocabulary = Vocabulary.build("grün\n", CHARACTERS)
    path = tmp_path / "vocabulary.json"
    vocabulary.save(path)
    assert json.loads(path.read_text(encoding="utf-8"))["tokens"] == ["\n", "g", "n", "r", "ü"]
    assert Vocabulary.load(path) == vocabulary
    path.write_text('{"level": "character"')
    with pytest.raises(InputError, match=r"vocabulary\.json: vocabulary: wanted JSON"):
        Vocabulary.load(path)
    with pytest.raises(InputError, match=r"none\.json: cannot be read: No such file"):
        Vocabulary.load(tmp_path / "none.json")
    path.write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"vocabulary\.json: .*utf-8"):
        Vocabulary.load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "wanted JSON"),
        ("null", "wanted JSON"),
        ("[" * 100_000, "wanted JSON"),
        ('{"level": "character", "tokens": [1]}', "a list of strings"),
        ('{"level": "character", "tokens": "abc"}', "a list of strings"),
        ('{"level": ["word"], "tokens": ["a"]}', "a list of strings"),
        ('{"level": "syllable", "tokens": ["a"]}', "level: got 'syllable'"),
        ('{"level": "character", "tokens": ["ab"]}', "'ab' is not one character"),
        ('{"level": "character", "tokens": ["a", "a"]}', "'a' is there more than once"),
        ('{"level": "character", "tokens": []}', "no tokens"),
        ('{"level": "word", "tokens": ["a"]}', "needs the token <unk>"),
    ],
)
def test_bad_vocabulary(content, message):
    with pytest.raises(InputError, match=message):
        Vocabulary.from_json(content)


def test_unknown_character_is_shown():
    with pytest.raises(InputError, match=r"'ß' \(U\+00DF\) at position 2 .* 3 characters"):
        Vocabulary.build("abc", CHARACTERS).encode("abß")


def test_words():
    text = "Don't stop, said the cat's friend: (never)!\nA well-known rule"
    assert WORDS.tokenize(text) == [
        *["Don't", "stop", ",", "said", "the", "cat's", "friend", ":", "(", "never", ")", "!"],
        *[END_OF_LINE, "A", "well-known", "rule"],
    ]
    vocabulary = Vocabulary.build(WORDS.tokenize(text), WORDS)
    assert vocabulary.decode(vocabulary.encode(text)) == text


def test_unknown_words():
    vocabulary = Vocabulary.build(["a", "a", "b"], WORDS, min_count=2)
    assert "b" not in vocabulary
    assert vocabulary.encode("a b\n").tolist() == [
        vocabulary.number(token) for token in ("a", UNKNOWN, END_OF_LINE)
    ]


@pytest.mark.parametrize(
    ("text", "word", "piece"),
    [
        ("once upo", "upo", "upo"),
        ("I don't", "don't", "don't"),
        ("a well-kn", "well-kn", "well-kn"),
        ("a well-", "well-", "well-"),
        ("the dog 's", "'s", "'s"),
        ("(re", "re", "(re"),
        ("a - ", "", ""),
        ("once\n", "", ""),
        ("once\u00a0", "", ""),
        ("(", "", "("),
        ("", "", ""),
    ],
)
def test_word_being_typed(text, word, piece):
    assert WORDS.begun(text) == CHARACTERS.begun(text) == word
    assert PIECES.begun(text) == piece


@given(st.text("ab'- (\n_"))
def test_a_word_being_typed_is_the_last_token_so_far(text):
    """Typed on with a letter, the tokenizer makes one token of the word."""
    for kind in (WORDS, PIECES):
        begun = kind.begun(text)
        if begun:
            assert kind.tokenize(text + "b")[-1] == begun + "b"


def test_whitespace_keeps_tokens_as_they_are():
    text = "the <unk> u.s. 's N\nn't stop"
    vocabulary = Vocabulary.build(PIECES.tokenize(text), PIECES)
    assert vocabulary.encode("u.s. 's")[0] == vocabulary.number("u.s.")
    assert vocabulary.number(UNKNOWN) in vocabulary.encode(text)
    assert vocabulary.decode(vocabulary.encode(text)) == text
