"""Keystrokes saved, against a simulated typist who asks for suggestions after each key."""

from __future__ import annotations

import numpy as np
import pytest

from fastrnn.lm import InputError, Vocabulary, data, preset
from fastrnn.lm.data.texts import Text
from fastrnn.lm.generation import Writer
from fastrnn.lm.keystrokes import Keystrokes, count_characters, keystrokes, tokens_between
from fastrnn.lm.tokenizers import (
    END_OF_LINE,
    UNKNOWN,
    CharacterTokenizer,
    WhitespaceTokenizer,
    WordTokenizer,
    in_word,
)
from fastrnn.lm.training import Training
from fastrnn.mxnet import import_mxnet

mx = import_mxnet()
TEXT = data.load_text("builtin")[:20_000]
SMALL = {"embed": 8, "hidden": 48, "batch": 8, "steps": 20, "epochs": 3, "validation": 0.1}


@pytest.fixture(scope="module", params=["demo", "unrolled", "zaremba-small"])
def writer(request):
    faster = {"rate": 0.02} if request.param == "demo" else {}
    training = Training(preset(request.param, **SMALL, **faster), TEXT, [mx.cpu()])
    for _ in range(3):
        training.run_epoch()
    return Writer(training.model, training.corpus.vocabulary, training.settings, mx.cpu())


def typed_by_hand(writer, text, word, begin):
    """Keys for one word, asking for suggestions after each key."""
    for typed in range(len(word)):
        found = writer.suggest(text[: begin + typed], k=3)
        shown = found.completions if typed else found.next
        if word in [suggestion.text for suggestion in shown]:
            return typed + 1
    return len(word)


def test_it_is_what_a_person_would_see(writer):
    tokenizer = writer.vocabulary.tokenizer
    text = tokenizer.detokenize(tokenizer.tokenize(TEXT[:400]))
    keys = characters = words = end = 0
    while words < 20:
        begin = next(at for at in range(end, len(text)) if in_word(text[at]))
        keys += begin - end
        end = next(at for at in range(begin, len(text)) if text[at] in ' ,.()"[]:/;\n')
        keys += typed_by_hand(writer, text, text[begin:end], begin)
        words += 1
        characters = end
    assert keystrokes(writer, tokenizer.tokenize(text), 20) == Keystrokes(20, characters, keys)
    assert keys < characters or writer.settings.model == "unrolled"


class Fixed(Writer):
    """Always finds the words before others in the order of the vocabulary."""

    def __init__(self, tokens):
        vocabulary = Vocabulary([UNKNOWN, END_OF_LINE, *tokens], WordTokenizer())
        super().__init__(None, vocabulary, preset("zaremba-small"), None)

    def read(self, numbers, state=None):
        return -np.arange(len(self.vocabulary), dtype=float), state


@pytest.mark.parametrize(
    ("words", "text", "wanted"),
    [
        # The end of the line is a suggestion before a word, so that two words are.
        (["the", "then", "they", "them"], "the", Keystrokes(1, 3, 1)),
        (["the", "then", "they", "them"], "they", Keystrokes(1, 4, 2)),
        (["the", "then", "they", "them"], "them", Keystrokes(1, 4, 4)),
        (["the", "then", "they", "toy"], "toy the", Keystrokes(2, 7, 3 + 1 + 1)),
        (["the"], "other", Keystrokes(1, 5, 5)),
        (["the"], "(the), the", Keystrokes(2, 10, 1 + 1 + 3 + 1)),
        (["the"], "<unk> the", Keystrokes(1, 9, 7)),
        # The end of the line is no completion of "<e".
        (["<e1>", "<e2>", "<e3>"], "<e3>", Keystrokes(1, 4, 2)),
        (["the"], "...", Keystrokes(0, 0, 0)),
    ],
)
def test_what_is_counted(words, text, wanted):
    writer = Fixed(words)
    assert keystrokes(writer, writer.vocabulary.tokenizer.tokenize(text), 9) == wanted


def test_shares():
    assert Keystrokes(2, 10, 4).saved == pytest.approx(0.6)
    assert Keystrokes(0, 0, 0).saved is None
    with pytest.raises(InputError, match="keystrokes: got 0, wanted at least 1"):
        keystrokes(Fixed(["the"]), ["the"], 0)


@pytest.mark.parametrize("kind", [CharacterTokenizer, WordTokenizer, WhitespaceTokenizer])
def test_characters_of_tokens(kind):
    tokenizer = kind()
    text = tokenizer.detokenize(tokenizer.tokenize(TEXT))
    tokens = list(tokenizer.tokenize(text))
    counted = tokens_between(Text.of(text), tokenizer, 0, len(tokens))
    assert count_characters(tokenizer, counted) == len(text)
    part = list(tokens_between(Text.of(text), tokenizer, 7, 30))
    assert part == tokens[7:30]
    assert count_characters(tokenizer, iter(part)) == len(tokenizer.detokenize(part))
