"""The parts of a corpus, BPTT batches, windows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrnn.lm import InputError, Settings
from fastrnn.lm.batches import arrange, bptt_batches, sliding_windows
from fastrnn.lm.data.corpus import encode_corpus, split_sizes
from fastrnn.lm.tokenizers import UNKNOWN


@given(st.integers(3, 10**7), st.floats(0, 0.49), st.floats(0, 0.49))
def test_split_sizes(length, validation, test):
    parts = split_sizes(length, validation, test)
    assert sum(parts) == length
    assert all(part >= 0 for part in parts)
    assert abs(parts[1] - length * validation) <= 0.5


@pytest.mark.parametrize(("validation", "test"), [(-0.1, 0), (1, 0), (0.5, 0.5), (0, float("nan"))])
def test_bad_split(validation, test):
    with pytest.raises(InputError):
        Settings(validation=validation, test=test)


def test_corpus_parts_follow_each_other():
    text = "".join(map(chr, range(32, 132)))
    corpus = encode_corpus(text, Settings(validation=0.2, test=0.1))
    assert [len(part) for part in corpus[1:]] == [70, 20, 10]
    assert corpus.vocabulary.decode(np.concatenate(corpus[1:])) == text


def test_words_of_the_held_out_part_may_be_unknown():
    corpus = encode_corpus("a b a b a b a c", Settings(level="word", validation=0.25))
    assert "c" not in corpus.vocabulary
    assert corpus.validation.tolist()[-1] == corpus.vocabulary.number(UNKNOWN)


def test_empty_text():
    with pytest.raises(InputError, match="empty"):
        encode_corpus("", Settings())
    with pytest.raises(InputError, match="empty"):
        encode_corpus("   ", Settings(level="word"))


@given(st.integers(2, 400), st.integers(1, 20), st.integers(1, 30))
def test_every_token_is_a_target_once(length, batch, steps):
    numbers = np.arange(length)
    if length <= batch:
        with pytest.raises(InputError, match="too short"):
            arrange(numbers, batch)
        return
    inputs, targets = arrange(numbers, batch)
    pieces = list(bptt_batches(inputs, targets, steps))
    assert all(len(x) == steps for x, _ in pieces[:-1])
    seen = np.concatenate([y for _, y in pieces])
    # Down the columns, one after the other, is the text itself.
    np.testing.assert_array_equal(seen.T.ravel(), np.arange(1, seen.size + 1))
    assert 0 <= length - 1 - seen.size < batch
    for x, y in pieces:
        np.testing.assert_array_equal(x + 1, y)


def test_a_large_text_is_not_copied():
    numbers = np.zeros(1000, np.uint8)
    for array in (*arrange(numbers, 8), *sliding_windows(numbers, 5)):
        assert np.shares_memory(array, numbers)


@given(st.integers(1, 100), st.integers(1, 9), st.integers(1, 9))
def test_windows(length, width, stride):
    numbers = np.arange(length)
    if length <= width:
        with pytest.raises(InputError, match="too short"):
            sliding_windows(numbers, width, stride)
        return
    windows, targets = sliding_windows(numbers, width, stride)
    assert len(windows) == (length - width - 1) // stride + 1
    np.testing.assert_array_equal(windows[:, 0], stride * np.arange(len(windows)))
    np.testing.assert_array_equal(windows[:, -1] + 1, targets)
    assert windows.shape[1] == width
