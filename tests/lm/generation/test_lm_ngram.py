"""The counting baseline."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrnn.lm import InputError, ngram
from fastrnn.lm.ngram import NGram

NUMBERS = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(np.array)


@given(NUMBERS, st.integers(0, 4), st.lists(st.integers(0, 4), max_size=6))
def test_probabilities_sum_to_one(numbers, order, context):
    model = NGram(numbers, order, 5)
    total = sum(model.probability(token, context) for token in range(5))
    assert total == pytest.approx(1, rel=1e-12)


@given(NUMBERS, st.integers(0, 3), st.lists(st.integers(0, 4), min_size=3, max_size=6))
def test_only_the_last_tokens_of_the_context_count(numbers, order, context):
    model = NGram(numbers, order, 5)
    tail = context[len(context) - order :]
    assert model.probability(1, context) == model.probability(1, tail)


def test_by_hand():
    # "abab", order 1, of three tokens. Alone: a 2, b 2, n = 4, two kinds.
    model = NGram(np.array([0, 1, 0, 1]), 1, 3)
    alone = (2 + 2 / 3) / (4 + 2)
    assert model.probability(1, []) == pytest.approx(alone)
    # After a: b twice, n = 2, one kind.
    assert model.probability(1, [0]) == pytest.approx((2 + alone) / (2 + 1))
    # Token 2 was never seen.
    assert model.probability(2, [0]) == pytest.approx((0 + (0 + 2 / 3) / 6) / 3)


def test_the_loss_is_the_mean_over_the_range():
    model = NGram(np.array([0, 1, 2, 0, 1, 2, 0, 1]), 2, 3)
    text = np.array([0, 1, 2, 0])
    losses = [-math.log(model.probability(text[i], text[:i])) for i in (1, 2)]
    assert model.evaluate(text, 1, 3) == pytest.approx(sum(losses) / 2)


def test_more_context_helps_where_there_is_structure():
    text = np.tile([0, 1, 0, 2], 50)
    losses = [NGram(text[:150], order, 3).evaluate(text[150:], 3, 50) for order in range(3)]
    assert losses[0] > losses[1] > losses[2]


def test_a_long_text_is_taken_in_pieces(monkeypatch):
    text = np.random.default_rng(1).integers(0, 4, 100).astype(np.uint8)
    at_once = NGram(text, 3, 4)
    loss = at_once.evaluate(text, 2, 90)
    monkeypatch.setattr(ngram, "_AT_ONCE", 7)
    in_pieces = NGram(text, 3, 4)
    assert in_pieces._followed == at_once._followed
    assert in_pieces.evaluate(text, 2, 90) == loss


def test_bad_order():
    with pytest.raises(InputError, match="order: got -1"):
        NGram(np.array([0]), -1, 1)
