"""Looking into models, against what a few more runs of the model tell."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from fastrnn.lm import InputError, Vocabulary, data, preset
from fastrnn.lm.evaluation import loss_and_gradient, predict
from fastrnn.lm.generation import Writer
from fastrnn.lm.inspection import (
    activations,
    draw_tinted,
    gradient_by_distance,
    pyplot,
    units_for,
)
from fastrnn.lm.models import build_model
from fastrnn.lm.tokenizers import CharacterTokenizer
from fastrnn.mxnet import import_mxnet

mx = import_mxnet()
TEXT = data.load_text("builtin")[:2000]
VOCABULARY = Vocabulary.build(TEXT, CharacterTokenizer())
NUMBERS = VOCABULARY.encode(TEXT)


def writer_of(cell, layers=2, model="language"):
    settings = preset("demo", cell=cell, hidden=12, embed=8, layers=layers, model=model)
    network = build_model(settings, len(VOCABULARY))
    mx.random.seed(1)
    network.initialize(mx.init.Uniform(0.4))
    return Writer(network, VOCABULARY, settings, mx.cpu())


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh"])
def test_activations_are_the_layers_outputs(cell):
    writer = writer_of(cell)
    values = activations(writer, TEXT[:30])
    assert values.shape == (30, 2, 12)
    tokens = mx.nd.array(NUMBERS[:30, None], dtype="int32")
    model = writer.model
    output, states = model.rnn(model.embedding(tokens), model.begin_state(1))
    np.testing.assert_allclose(values[:, 1], output.asnumpy()[:, 0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(values[-1, 0], states[0].asnumpy()[0, 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh"])
def test_gradients_are_what_losses_change_by(cell):
    """The state of one row is moved along one unit at a time, in float32."""
    writer, distance = writer_of(cell, layers=1), 4
    norms = gradient_by_distance(writer, NUMBERS, distance, rows=1)
    assert norms.shape == (distance + 1,)
    model, tokens = writer.model, mx.nd.array(NUMBERS[: 2 * distance + 2, None], dtype="int32")
    for back in range(1, distance + 1):
        cut = 2 * distance + 1 - back
        _, state = model(tokens[:cut], model.begin_state(1))
        rest, targets = tokens[cut:-1], tokens[cut + 1 :]
        slopes = []
        for part in range(len(state)):
            for unit in range(12):
                losses = []
                for move in (0.05, -0.05):
                    moved = [array.copy() for array in state]
                    moved[part][0, 0, unit] += move
                    if len(rest) > 1:
                        moved = model(rest[:-1], moved)[1]
                    logits, _ = predict(model, rest[-1:], moved)
                    losses.append(loss_and_gradient(logits, targets[-1:])[0].asscalar())
                slopes.append((losses[0] - losses[1]) / 0.1)
        assert norms[back] == pytest.approx(np.linalg.norm(slopes), rel=0.02)


def test_gradients_are_means_over_rows():
    writer = writer_of("gru")
    pieces = [NUMBERS[begin : begin + 500] for begin in (0, 500, 1000, 1500)]
    alone = [gradient_by_distance(writer, piece, 5, rows=1) for piece in pieces]
    together = gradient_by_distance(writer, NUMBERS, 5, rows=4)
    np.testing.assert_allclose(together, np.mean(alone, axis=0), rtol=1e-4)


def test_the_unit_that_follows_a_feature():
    generator = np.random.default_rng(1)
    values = generator.normal(size=(200, 5))
    values[:, 4] = 1  # never changes
    features = {"third": -values[:, 3] * 2 + 1, "same": np.ones(200)}
    found = units_for(values, features)
    assert list(found) == ["third"]
    assert found["third"] == (3, pytest.approx(-1))


def test_a_text_is_drawn():
    if importlib.util.find_spec("matplotlib") is None:
        pytest.skip("matplotlib is not installed")
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    draw_tinted(axes, "a $b\nc", np.array([0, 0.5, 1, -1, 0, 0.1]), width=4)
    assert "".join(text.get_text() for text in axes.texts) == "a $b¶c"
    np.testing.assert_array_equal(axes.images[0].get_array()[1], [0, 0.1, 0, 0])
    with pytest.raises(InputError, match="values: got 1, wanted 2, one for each character"):
        draw_tinted(axes, "ab", np.zeros(1))


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'fastrnn\[notebook\]'"):
        pyplot()


def test_bad_input():
    unrolled = writer_of("lstm", model="unrolled")
    for call in (
        lambda: activations(unrolled, "The"),
        lambda: gradient_by_distance(unrolled, NUMBERS),
    ):
        with pytest.raises(InputError, match="model: the unrolled one has no state"):
            call()
    writer = writer_of("lstm")
    with pytest.raises(InputError, match="text: got ''"):
        activations(writer, "")
    with pytest.raises(InputError, match="distance: got 0, wanted at least 1"):
        gradient_by_distance(writer, NUMBERS, 0)
    with pytest.raises(InputError, match="2000 tokens, and 16 rows of this distance take 2592"):
        gradient_by_distance(writer, NUMBERS, 80)
