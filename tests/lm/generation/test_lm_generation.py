"""Sampling, writing, suggesting."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fastrnn.lm import InputError, Vocabulary, data, preset
from fastrnn.lm.generation import Writer, choose, until
from fastrnn.lm.generation import writer as writing
from fastrnn.lm.tokenizers import END_OF_LINE, UNKNOWN, CharacterTokenizer, WordTokenizer
from fastrnn.lm.training import Training
from fastrnn.lm.training.checkpoint import save_checkpoint
from fastrnn.mxnet import import_mxnet

mx = import_mxnet()
TEXT = data.load_text("builtin")[:3000]
SMALL = {"embed": 8, "hidden": 16, "batch": 4, "steps": 20, "validation": 0.1}
LOGITS = hnp.arrays(np.float64, st.integers(1, 12), elements=st.floats(-20, 20))
P = np.array([0.4, 0.3, 0.2, 0.06, 0.04])


def frequencies(**options):
    generator = np.random.default_rng(7)
    drawn = [choose(np.log(P), generator, **options) for _ in range(8000)]
    return np.bincount(drawn, minlength=len(P)) / 8000


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, P),
        ({"temperature": 0.5}, P**2 / (P**2).sum()),
        ({"temperature": 2}, P**0.5 / (P**0.5).sum()),
        ({"top_k": 2}, np.array([4, 3, 0, 0, 0]) / 7),
        ({"top_k": 1}, [1, 0, 0, 0, 0]),
        ({"top_k": 99}, P),
        ({"top_p": 0.69}, np.array([4, 3, 0, 0, 0]) / 7),
        ({"top_p": 0.71}, np.array([4, 3, 2, 0, 0]) / 9),
        ({"top_p": 1e-9}, [1, 0, 0, 0, 0]),
        ({"top_k": 3, "top_p": 0.75}, np.array([4, 3, 0, 0, 0]) / 7),
        ({"temperature": 0}, [1, 0, 0, 0, 0]),
        ({"temperature": 1e-6}, [1, 0, 0, 0, 0]),
        ({"temperature": 1e-320}, [1, 0, 0, 0, 0]),
    ],
)
@pytest.mark.filterwarnings("error")
def test_sampling_distribution(options, wanted):
    # Five standard deviations of the frequency of a token of probability one half.
    np.testing.assert_allclose(frequencies(**options), wanted, atol=5 * 0.5 / np.sqrt(8000))
    assert not frequencies(**options)[np.asarray(wanted) == 0].any()


@given(LOGITS, st.integers(0, 2**32 - 1))
def test_greedy_is_the_maximum(logits, seed):
    assert choose(logits, np.random.default_rng(seed), temperature=0) == logits.argmax()


@given(LOGITS, st.integers(1, 12), st.floats(0.01, 1), st.floats(0.01, 3))
def test_draws_are_among_the_kept(logits, top_k, top_p, temperature):
    chosen = choose(logits, np.random.default_rng(0), temperature, top_k, top_p)
    assert (logits > logits[chosen]).sum() < top_k


@pytest.fixture(scope="module", params=["lstm", "gru", "unrolled", "word"])
def writer(request, tmp_path_factory):
    name = {"unrolled": "unrolled", "word": "zaremba-small"}.get(request.param, "demo")
    changes = {"cell": request.param} if name == "demo" else {}
    settings = preset(name, **SMALL, **changes)
    training = Training(settings, TEXT, [mx.cpu()])
    training.run_epoch()
    path = tmp_path_factory.mktemp("run") / "best.npz"
    save_checkpoint(path, training.checkpoint())
    return Writer.from_checkpoint(path.parent)


def test_a_long_prompt_is_read_in_pieces(writer, monkeypatch):
    whole, _ = writer.read(writer.vocabulary.encode(TEXT))
    monkeypatch.setattr(writing, "_TOKENS_AT_ONCE", 100)
    sizes = []

    def forward(tokens, *states):
        sizes.append(tokens.size)
        return original(tokens, *states)

    original = writer.model.forward
    monkeypatch.setattr(writer.model, "forward", forward)
    pieces, _ = writer.read(writer.vocabulary.encode(TEXT))
    assert max(sizes) <= 100
    np.testing.assert_allclose(pieces, whole, rtol=0, atol=1e-5)


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_writing_takes_no_more_memory_with_each_token(writer):
    pieces = writer.generate("The ", length=10_000, seed=1)
    for _ in zip(range(500), pieces):
        pass
    before = resident_bytes()
    for _ in zip(range(1500), pieces):
        pass
    assert resident_bytes() - before < 3 << 20


@pytest.mark.parametrize("prompt", ["The value", "The value ", "The value\n", "  "])
def test_one_space_between_prompt_and_text(writer, prompt):
    pieces = {next(writer.generate(prompt, seed=seed)) for seed in range(20)}
    if writer.vocabulary.level == "character":
        assert {len(piece) for piece in pieces} == {1}
    else:
        spaced = any(piece.startswith(" ") for piece in pieces)
        assert spaced == (not prompt[-1].isspace())


@pytest.mark.parametrize("prompt", ["", "a", "The value of an object"])
def test_any_prompt(writer, prompt):
    pieces = list(writer.generate(prompt, length=30, seed=1))
    assert len(pieces) == 30
    assert UNKNOWN not in "".join(pieces)


def test_seeds(writer):
    one, same, other = (
        "".join(writer.generate("The ", length=60, seed=seed)) for seed in (1, 1, 2)
    )
    assert one == same != other
    np.random.seed(0)  # noqa: NPY002 - the global generator must not matter
    assert "".join(writer.generate("The ", length=60, seed=1)) == one


def test_a_batch_of_texts(writer):
    options = {"length": 40, "seed": 5}
    texts = writer.generate_batch("The ", 3, **options)
    assert len(set(texts)) == 3
    assert texts == writer.generate_batch("The ", 3, **options)
    assert UNKNOWN not in "".join(texts)
    one = "".join(writer.generate("The ", **options))
    assert writer.generate_batch("The ", **options) == [one]
    assert texts[0] == one
    greedy = writer.generate_batch("The ", 2, 20, temperature=0)
    assert greedy == ["".join(writer.generate("The ", 20, temperature=0))] * 2
    with pytest.raises(InputError, match="count: got 0, wanted 1 to 10,000"):
        writer.generate_batch(count=0)


def test_rows_are_read_as_each_alone(writer):
    numbers = writer.vocabulary.encode(TEXT)[:40]
    prompt, further = numbers[:20], numbers[20:].reshape(10, 2)
    _, state = writer.read(prompt)
    states = [state, state]
    for tokens in further:
        both, states = writer.step(tokens, states)
    for row, own in enumerate(further.T):
        alone, _ = writer.read(own, state)
        np.testing.assert_allclose(both[row], alone, rtol=0, atol=1e-5)


def test_a_text_ends_before_the_stop(writer):
    options = {"length": 60, "seed": 1}
    whole = "".join(writer.generate("The ", **options))
    stop = whole[20:23]
    wanted = whole[: whole.index(stop)]
    assert "".join(writer.generate("The ", **options, stop=stop)) == wanted
    texts = writer.generate_batch("The ", 3, **options)
    assert [text.split(stop)[0] for text in texts] == writer.generate_batch(
        "The ", 3, **options, stop=stop
    )
    assert "".join(writer.generate("The ", **options, stop="no such text")) == whole
    with pytest.raises(InputError, match="stop: got '', wanted at least one character"):
        writer.generate("The ", stop="")


@given(st.text("ab", max_size=12), st.text("ab", min_size=1, max_size=4), st.integers(1, 3))
def test_until_a_string(text, stop, size):
    pieces = [text[begin : begin + size] for begin in range(0, len(text), size)]
    assert "".join(until(pieces, stop)) == text.split(stop)[0]


def test_what_cannot_be_the_stop_is_written_at_once():
    pieces = iter(["x", "a", "a", "b", "c"])
    shown = until(pieces, "ab")
    assert next(shown) == "x"
    assert next(shown) == "a"
    assert list(pieces) == ["b", "c"]


def test_carrying_the_state_is_reading_it_all(writer):
    """What one token a step gives is what the whole text at once gives."""
    numbers = writer.vocabulary.encode("The value of an object")
    whole, _ = writer.read(numbers)
    state = None
    for number in numbers:
        step, state = writer.read(np.array([number]), state)
    np.testing.assert_allclose(step, whole, rtol=0, atol=1e-5)
    assert np.exp(step).sum() == pytest.approx(1)


def test_several_texts_step_in_one_batch(writer):
    prefixes = ["The value", "an object", "in"]
    states = [writer.read(writer.vocabulary.encode(prefix))[1] for prefix in prefixes]
    numbers = writer.vocabulary.encode(
        "a b" if writer.vocabulary.level == "character" else "a in a"
    )
    for _ in range(2):  # also from the states of a step
        rows, after = writer.step(numbers, states)
        for row, number, state in zip(rows, numbers, states):
            alone, _ = writer.read(np.array([number], np.int32), state)
            np.testing.assert_allclose(row, alone, rtol=0, atol=1e-5)
        states = after


def test_log_probabilities_after_each_token(writer):
    numbers = writer.vocabulary.encode("The value of an object")
    first, state = writer.read_all(numbers[:2])
    rest, _ = writer.read_all(numbers[2:], state)
    for n, row in enumerate(np.concatenate([first, rest])):
        np.testing.assert_allclose(row, writer.read(numbers[: n + 1])[0], rtol=0, atol=1e-5)


def test_greedy_writing_takes_the_likeliest(writer):
    text = "".join(writer.generate("The value", length=5, temperature=0))
    assert text == "".join(writer.generate("The value", length=5, top_k=1, seed=3))


def test_unknown_character_is_shown(writer):
    if writer.vocabulary.level != "character":
        assert list(writer.generate("ß", length=1))
        return
    with pytest.raises(InputError, match=r"'ß' \(U\+00DF\) at position 3"):
        writer.generate("TheßT")
    with pytest.raises(InputError, match="'ß'"):
        writer.suggest("ß")


@pytest.mark.parametrize(
    "options",
    [{"temperature": -1}, {"temperature": float("nan")}, {"top_k": -1}, {"top_p": 0},
     {"top_p": 1.5}, {"length": -1}],
)  # fmt: skip
def test_options_out_of_range(writer, options):
    with pytest.raises(InputError, match=f"{next(iter(options))}: got"):
        writer.generate("", **options)


def test_pieces_of_words_have_their_spaces():
    words = WordTokenizer()
    vocabulary = Vocabulary.build(words.tokenize("Hello, old (new) world\nend"), words)
    writer = Writer(None, vocabulary, preset("zaremba-small"), None)
    numbers = vocabulary.encode("Hello, old (new) world\nend")
    pieces = [writer._piece(int(a), int(b)) for a, b in zip(numbers, numbers[1:])]
    assert "Hello" + "".join(pieces) == "Hello, old (new) world\nend"


WORDS = {"the": 0.4, "then": 0.2, "they": 0.1, "to": 0.2, "a": 0.1}


class Lexicon(Writer):
    """Knows exactly how often each word is meant, and nothing else."""

    def __init__(self):
        vocabulary = Vocabulary(" aehnoty", CharacterTokenizer())
        super().__init__(None, vocabulary, preset("demo"), None)

    def read(self, numbers, state=None):
        text = (state or "") + self.vocabulary.decode(numbers)
        begun = self.vocabulary.tokenizer.begun(text)
        weight = dict.fromkeys(self.vocabulary.tokens, 1e-12)
        for word, probability in WORDS.items():
            if word.startswith(begun):
                weight[(word + " ")[len(begun)]] += probability
        values = np.array([weight[token] for token in self.vocabulary.tokens])
        return np.log(values / values.sum()), text

    def step(self, numbers, states):
        rows, after = zip(*(self.read(numbers[n : n + 1], s) for n, s in enumerate(states)))
        return np.stack(rows), list(after)


def test_suggested_characters_and_completions():
    found = Lexicon().suggest("a th", k=3)
    assert found.next[0].text == "e"
    assert [s.text for s in found.completions] == ["the", "then", "they"]
    assert [s.probability for s in found.completions] == pytest.approx(
        [4 / 7, 2 / 7, 1 / 7], rel=1e-6
    )
    after_space = Lexicon().suggest("the ", k=2)
    assert after_space.completions == []
    assert [s.text for s in after_space.next] == ["t", "a"]
    assert after_space.next[0].probability == pytest.approx(0.9)


def test_suggestions_of_a_model(writer):
    found = writer.suggest("The o", k=4)
    probabilities = [s.probability for s in found.next]
    assert len(found.next) == 4
    assert probabilities == sorted(probabilities, reverse=True)
    assert all(s.text.startswith("o") for s in found.completions)
    assert 0 < len(found.completions) <= 4
    assert UNKNOWN not in [s.text for s in writer.suggest("The o", k=10**6).next]
    with pytest.raises(InputError, match="k: got 0"):
        writer.suggest("The", k=0)


def test_completed_words_come_from_the_text_before():
    vocabulary = Vocabulary(
        [UNKNOWN, END_OF_LINE, "the", "cat-nap", "cat-door", "dog"], WordTokenizer()
    )

    class Fixed(Writer):
        def read(self, numbers, state=None):
            assert vocabulary.decode(numbers).startswith("the")
            assert "cat" not in vocabulary.decode(numbers)
            return np.log([0.05, 0.05, 0.1, 0.1, 0.3, 0.4]), None

    found = Fixed(None, vocabulary, preset("zaremba-small"), None).suggest("the cat-", k=2)
    assert [s.text for s in found.completions] == ["cat-door", "cat-nap"]
    assert [s.probability for s in found.completions] == pytest.approx([0.75, 0.25])
