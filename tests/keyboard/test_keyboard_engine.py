"""What the keyboard's engine says of a text, however it came about."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from fastrnn.lm import data, preset
from fastrnn.lm.generation import Writer
from fastrnn.lm.keyboard.engine import Engine
from fastrnn.lm.keyboard.states import PIECE, Hashes, Kept, piece_end
from fastrnn.lm.models import build_model
from fastrnn.lm.tokenizers import END_OF_LINE, UNKNOWN, in_word, tokenizer_for
from fastrnn.lm.tokenizers.vocabulary import Vocabulary
from fastrnn.mxnet import import_mxnet

mx = import_mxnet()

TEXT = data.load_text("builtin")[3000:6000]
PHRASE = 'The value of an object: is "there'
CLOSE = {"rel": 1e-3, "abs": 2e-4}


def new_engine(writer, limit=1 << 26):
    return Engine(writer, Kept(limit), "run")


@pytest.fixture
def engine(writer):
    return new_engine(writer)


def is_same(one, other):
    """Whether two answers are the same but for rounding."""
    assert (one["start"], one["complete"], one["ready"]) == (
        other["start"],
        other["complete"],
        other["ready"],
    )
    for a, b in zip(one["tokens"], other["tokens"]):
        assert {**a, "bits": 0} == {**b, "bits": 0}
        assert a.get("bits", 0) == pytest.approx(b.get("bits", 0), **CLOSE)
    assert len(one["tokens"]) == len(other["tokens"])
    assert one["keys"] == pytest.approx(other["keys"], **CLOSE)
    assert {s["text"]: s["probability"] for s in one["suggestions"]} == pytest.approx(
        {s["text"]: s["probability"] for s in other["suggestions"]}, **CLOSE
    )


def test_completions_are_the_writers(writer, engine):
    for length in range(len(PHRASE) + 1):
        completions = writer.suggest(PHRASE[:length], k=3).completions
        if completions:
            found = engine.answer(PHRASE[:length])["suggestions"]
            assert [s["text"] for s in found] == [c.text for c in completions]
            assert [s["probability"] for s in found] == pytest.approx(
                [c.probability for c in completions], **CLOSE
            )
            begun = writer.vocabulary.tokenizer.begun(PHRASE[:length])
            for proposal in found:
                assert (begun + proposal["insert"]).rstrip() == proposal["text"]


def test_bits_are_the_writers(writer, engine):
    vocabulary = writer.vocabulary
    numbers = vocabulary.encode(PHRASE)
    wanted = []
    for n, number in enumerate(numbers):
        before = numbers[:n] if n else writer._prompt("")
        wanted.append(-writer.read(before)[0][number] / math.log(2))
    answer = engine.answer(PHRASE + "\n", k=0)
    assert "".join(piece["text"] for piece in answer["tokens"]) == PHRASE + "\n"
    for piece, bits, number in zip(answer["tokens"], wanted, numbers):
        if UNKNOWN in vocabulary and number == vocabulary.number(UNKNOWN):
            assert piece["unknown"]
        else:
            assert piece["bits"] == pytest.approx(bits, **CLOSE)


def edits(seed):
    """A text that is typed, pasted into, deleted from, in places all over it."""
    generator = random.Random(seed)
    text, cursor = "", 0
    for _ in range(12):
        kind = generator.choice(["type", "type", "type", "delete", "paste", "move"])
        if kind == "move":
            cursor = generator.randint(0, len(text))
        elif kind == "delete":
            count = generator.randint(0, min(cursor, 20))
            text, cursor = text[: cursor - count] + text[cursor:], cursor - count
        else:
            begin = generator.randrange(len(TEXT) - 200)
            size = generator.randint(1, 3) if kind == "type" else generator.randint(20, 200)
            piece = TEXT[begin : begin + size] + generator.choice(["", "", "😀", "ж ", "\n"])
            text, cursor = text[:cursor] + piece + text[cursor:], cursor + len(piece)
        yield text[:cursor], text[cursor:]


def test_no_edit_changes_the_answer(writer, engine):
    fresh = new_engine(writer)
    for before, after in edits(1):
        fresh.kept = Kept(0)
        is_same(engine.answer(before, after), fresh.answer(before, after))


def test_what_a_limit_forgets_is_read_again(writer, engine):
    tight = new_engine(writer, 20_000)
    for before, after in edits(3):
        is_same(tight.answer(before, after), engine.answer(before, after))
        assert tight.kept.size <= 20_000
    assert len(engine.kept) > len(tight.kept) > 0


def test_pieces_in_time_make_the_whole(writer, engine):
    text, cut = TEXT[:300] + "😀" + TEXT[300:500], 400
    whole = engine.answer(text[:cut], text[cut:])
    engine = new_engine(writer)
    tokens: list = []
    calls, ready = 0, None
    while True:
        start = sum(len(piece["text"]) for piece in tokens)
        answer = engine.answer(text[:cut], text[cut:], start, 0 if ready else 3, seconds=0)
        calls += 1
        assert answer["start"] == start
        tokens += answer["tokens"]
        ready = ready or (answer if answer["ready"] else None)
        assert answer["ready"] or not answer["suggestions"]
        if answer["complete"]:
            break
    assert calls > len(engine.vocabulary.encode(TEXT[:500])) / PIECE
    is_same({**ready, "start": 0, "tokens": tokens, "complete": True}, whole)


def test_suggestions_do_not_wait_for_the_rest(writer, engine):
    answer = engine.answer(TEXT[:100], TEXT[100:], seconds=60)
    tokens = len(engine.answer(TEXT[:100])["tokens"])
    assert (answer["ready"], answer["complete"]) == (True, False)
    assert tokens <= len(answer["tokens"]) <= tokens + PIECE
    start = sum(len(token["text"]) for token in answer["tokens"])
    assert engine.answer(TEXT[:100], TEXT[100:], start, k=0, seconds=600)["complete"]


def test_a_start_gives_the_rest(writer, engine):
    whole = engine.answer(TEXT[:400])
    text = "".join(piece["text"] for piece in whole["tokens"])
    for start in (0, 1, 57, 200, 399, 400, 9999):
        answer = engine.answer(TEXT[:400], start=start)
        assert answer["start"] <= start
        assert "".join(p["text"] for p in answer["tokens"]) == text[answer["start"] :]
        is_same({**answer, "tokens": []}, {**whole, "start": answer["start"], "tokens": []})
        assert answer["tokens"] == [] or answer["tokens"][-1] == whole["tokens"][-1]


class Counted:
    """Counts the tokens that a model reads."""

    def __init__(self, writer, monkeypatch):
        self.tokens = self.calls = 0
        original = writer.model.forward
        width = writer.settings.window if writer.settings.model == "unrolled" else 1

        def forward(tokens, *states):
            self.tokens += tokens.size // width
            self.calls += 1
            return original(tokens, *states)

        monkeypatch.setattr(writer.model, "forward", forward)


def test_a_key_costs_one_step(writer, engine, monkeypatch):
    if writer.vocabulary.level != "character":
        pytest.skip("a token is a word here")
    engine.answer(TEXT[:1000], k=0)
    counted = Counted(writer, monkeypatch)
    for length in range(1001, 1021):
        engine.answer(TEXT[:length], k=0, start=length - 1)
    assert counted.tokens <= 20
    # Back over what was typed, nothing is read again.
    for length in range(1020, 1000, -1):
        engine.answer(TEXT[:length], k=0, start=length - 1)
    assert counted.tokens <= 22
    # Back into what was pasted, a few tokens.
    for length in range(1000, 900, -1):
        engine.answer(TEXT[:length], k=0, start=length)
        engine.answer(TEXT[:length], k=3, start=length)
    before = counted.tokens
    for length in range(1000, 900, -1):
        engine.answer(TEXT[:length], k=3, start=length)
    assert counted.tokens == before


def test_the_beam_of_the_next_key_is_kept(writer, engine, monkeypatch):
    if writer.vocabulary.level != "character":
        pytest.skip("words are not spelled here")
    word = engine.answer("The val")["suggestions"][0]["text"]
    counted = Counted(writer, monkeypatch)
    engine.answer("The " + word, k=0, start=3 + len(word))
    assert counted.calls == 0


@pytest.mark.parametrize("unknown", ["😀", "ж", "\ud83d", "\x00", "e\u0301\u0302"])
def test_what_a_model_does_not_know_is_passed_over(writer, engine, unknown):
    apart = f" {unknown} "
    answer = engine.answer(f"The value{apart}of")
    assert "".join(piece["text"] for piece in answer["tokens"]) == f"The value{apart}of"
    assert any("unknown" in piece for piece in answer["tokens"])
    assert answer["suggestions"]
    if writer.vocabulary.level != "character" or UNKNOWN in writer.vocabulary:
        return
    without = engine.answer("The value" + apart.replace(unknown, "") + "of")
    known = [p["bits"] for p in answer["tokens"] if "bits" in p]
    plain = [p["bits"] for p in without["tokens"] if unknown[:1] not in p["text"]]
    if len(unknown) == 1:
        assert known == pytest.approx(plain, **CLOSE)


def test_a_word_with_an_unknown_character_keeps_it(run_folders):
    engine = Engine(*_load(run_folders["letters"]))
    found = engine.answer("The ж")["suggestions"]
    assert found
    assert all(s["text"].startswith("ж") and len(s["text"]) > 0 for s in found)


def _load(folder):
    return Writer.from_checkpoint(folder), Kept(1 << 24), "run"


def test_keys_are_what_may_be_typed(writer, engine):
    vocabulary = writer.vocabulary
    for text in ("The val", "The ", "", "The value", "The value.", "\n"):
        keys = engine.answer(text)["keys"]
        if vocabulary.level == "character":
            likely, _ = writer.read(writer._prompt(text))
            wanted = dict(zip(vocabulary.tokens, np.exp(likely)))
        else:
            wanted = keys_of_words(writer, text)
        wanted = {key: p for key, p in wanted.items() if p >= 1e-5}
        assert keys == pytest.approx(wanted, rel=1e-2, abs=2e-5)
        assert sum(keys.values()) == pytest.approx(1, abs=1e-2) or not keys


def keys_of_words(writer, text):
    """By trying every word: what the next character is, and how likely."""
    vocabulary = writer.vocabulary

    def following(stands):
        numbers = writer._prompt(stands)
        scores = np.exp(writer._known(writer.read(numbers)[0]))
        apart = not stands or stands[-1].isspace()
        for number, score in enumerate(scores):
            piece = vocabulary.tokens[number]
            piece = "\n" if piece == END_OF_LINE else piece
            if not apart:
                piece = writer._piece(int(numbers[-1]), number)
            yield piece, score / scores.sum()

    begun = vocabulary.tokenizer.begun(text)
    keys, whole = {}, 0.0
    for piece, score in following(text[: len(text) - len(begun)]):
        word = piece
        if begun and word == begun:
            whole = score
        elif word.startswith(begun):
            keys[word[len(begun)]] = keys.get(word[len(begun)], 0) + score
    if whole:
        for piece, score in following(text):
            keys[piece[0]] = keys.get(piece[0], 0) + whole * score
    total = sum(keys.values())
    return {key: weight / total for key, weight in keys.items()} if total else {}


class Even:
    """A writer of words for which all tokens are always equally likely."""

    def __new__(cls, *tokens):
        vocabulary = Vocabulary([UNKNOWN, END_OF_LINE, *tokens], tokenizer_for("word"))
        settings = preset("zaremba-small", layers=1, hidden=4, embed=4)
        model = build_model(settings, len(vocabulary))
        model.initialize(mx.init.Zero())
        return Writer(model, vocabulary, settings, mx.cpu())


def test_keys_of_a_model_without_a_word():
    keys = new_engine(Even("!", "?")).answer("!")["keys"]
    assert keys == pytest.approx({"\n": 1 / 3, "!": 1 / 3, "?": 1 / 3}, abs=1e-4)


def test_keys_between_two_scripts():
    """A Chinese word is not set apart, so that it says nothing of where others are."""
    engine = new_engine(Even("的", "apple", "the", "("))
    assert set(engine.answer("的")["keys"]) == {"\n", "的", "a", "t", "("}
    after = engine._keys_after("the", engine.vocabulary.number("the"), engine.root)
    assert set(after) == {"\n", "的", " "}
    assert set(engine.answer("the (")["keys"]) == {"\n", "的", "a", "t", "("}


def test_what_is_kept_keeps_nothing_else_in_memory(engine):
    engine.answer("The value of an object, th")
    for prefix in engine.kept._prefixes.values():
        state = prefix.state if isinstance(prefix.state, list) else [prefix.state]
        assert all(array.base is None for array in [*state, prefix.log_probabilities])


def test_the_next_word_after_a_space(writer, engine):
    for text in ("The value of ", "The value.", "(", ""):
        found = engine.answer(text)["suggestions"]
        assert len(found) == 3
        assert all(any(map(in_word, s["text"])) for s in found)
        assert not any(s["text"].startswith(" ") for s in found)
        probabilities = [s["probability"] for s in found]
        assert probabilities == sorted(probabilities, reverse=True)
        if text.endswith(" ") or not text:
            assert all(s["insert"].rstrip() == s["text"] for s in found)


def test_a_word_being_typed_is_not_judged(run_folders):
    engine = Engine(*_load(run_folders["words"]))
    last = engine.answer("The val")["tokens"][-1]
    assert last == {"text": " val", "typing": True}
    assert "typing" not in engine.answer("The value ")["tokens"][-1]
    assert "typing" not in engine.answer("The val", "ue of")["tokens"][-2]


@pytest.mark.parametrize("text", ["<eos> a", "a <eos>\n<unk> b", "  \n\n  ", "a\x1cb \u2028 c"])
def test_odd_texts_come_back(engine, text):
    answer = engine.answer(text)
    shown = "".join(piece["text"] for piece in answer["tokens"])
    assert text.startswith(shown)
    assert not text[len(shown) :].strip()
    assert answer["complete"]


def test_writing_on_is_the_writers(writer, engine):
    wanted = list(writer.generate("The value", 40, 0.8, seed=3))
    assert [p for p in engine.write("The value", 40, 0.8, seed=3) if p] == wanted
    odd = "The 😀value" if writer.vocabulary.level == "character" else "The value"
    assert [p for p in engine.write(odd, 40, 0.8, seed=3) if p] == wanted


def test_a_long_text_is_read_once(writer, engine, monkeypatch):
    text = TEXT
    counted = Counted(writer, monkeypatch)
    list(zip(engine.write(text, 1, 0.8), range(100_000)))
    answer = engine.answer(text, start=len(text))
    assert answer["complete"]
    tokens = len(writer.vocabulary.tokenizer.tokenize(text))
    assert counted.tokens < 1.2 * tokens + 200


@pytest.mark.parametrize("end", [1, 63, 64, 65, 200])
def test_pieces_end_where_states_are_looked_for(end):
    place, ends = 0, []
    while place < end:
        place = piece_end(place, end)
        ends.append(place)
    assert ends[-1] == end
    assert all(b - a <= PIECE for a, b in zip([0, *ends], ends))
    assert len(ends) <= end // PIECE + 6


def test_hashes_are_those_of_beginnings():
    import hashlib

    numbers = np.arange(200)
    hashes = Hashes(hashlib.blake2b(b"a"), numbers)
    for length in (0, 1, 63, 64, 65, 200):
        wanted = hashlib.blake2b(b"a" + numbers[:length].astype(np.int32).tobytes())
        assert hashes.at(length).digest() == wanted.digest()
