"""Settings and presets."""

from __future__ import annotations

import pytest

from fastrnn.lm import InputError, Settings, preset
from fastrnn.lm.config import PRESETS


def test_the_tutorials_settings():
    settings = preset("tutorial")
    assert (settings.cell, settings.embed, settings.hidden, settings.layers) == (
        *("lstm", 50),
        *(1000, 2),
    )
    assert (settings.batch, settings.steps, settings.dropout) == (32, 100, 0.4)
    # The tutorial clips the summed gradient at 0.2 x 100 x 32; ours is that of the mean over rows.
    assert settings.clip * settings.batch == pytest.approx(0.2 * 100 * 32)
    assert (settings.optimizer, settings.rate) == ("adam", 0.001)


def test_the_unrolled_models_settings():
    settings = preset("unrolled")
    assert (settings.model, settings.window, settings.stride) == ("unrolled", 3, 3)
    assert (settings.embed, settings.hidden, settings.batch, settings.epochs) == (30, 256, 32, 10)


def test_zarembas_settings():
    settings = preset("zaremba-small")
    assert (settings.level, settings.hidden, settings.layers) == ("word", 200, 2)
    assert (settings.batch, settings.steps, settings.epochs) == (20, 20, 13)
    assert (settings.optimizer, settings.rate, settings.decay) == ("sgd", 1, 0.5)
    assert (settings.decay_after, settings.clip, settings.dropout) == (4, 5, 0)
    assert settings.init == 0.1


def test_zarembas_medium_model():
    """Section 4.1 of arXiv:1409.2329; their norm, too, is of the gradient averaged over rows."""
    settings = preset("zaremba-medium")
    assert (settings.level, settings.embed, settings.hidden, settings.layers) == (
        *("word", 650),
        *(650, 2),
    )
    assert (settings.batch, settings.steps, settings.epochs) == (20, 35, 39)
    assert (settings.optimizer, settings.rate) == ("sgd", 1)
    assert (settings.decay * 1.2, settings.decay_after) == (pytest.approx(1), 6)
    # On each connection that is not recurrent, the first one included.
    assert (settings.dropout, settings.embed_dropout) == (0.5, 0.5)
    assert (settings.clip, settings.init) == (5, 0.05)


@pytest.mark.parametrize("name", PRESETS)
def test_any_setting_can_be_overridden(name):
    changed = preset(name, hidden=17, epochs=3, cell="gru")
    assert (changed.hidden, changed.epochs, changed.cell) == (17, 3, "gru")
    assert Settings.from_dict(changed.as_dict()) == changed
    assert preset(name) == PRESETS[name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": 0}, "hidden: got 0, wanted at least 1"),
        ({"hidden": 2.5}, "hidden: got 2.5, wanted int"),
        ({"hidden": True}, "hidden: got True, wanted int"),
        ({"dropout": 1.0}, "dropout: got 1.0, wanted at least 0 and less than 1"),
        ({"rate": float("nan")}, "rate: got nan"),
        ({"cell": "elman"}, "cell: got 'elman', wanted one of lstm, gru, rnn_tanh, rnn_relu"),
        ({"tie_weights": True, "embed": 5}, "tie_weights: wants embed and hidden"),
        ({"hiden": 5}, "there is no setting 'hiden'"),
        ({"validation": 0.6, "test": 0.4}, "leaves nothing to train on"),
    ],
)
def test_bad_settings(change, message):
    with pytest.raises(InputError, match=message):
        preset("demo", **change)


def test_unknown_preset():
    with pytest.raises(InputError, match="preset: got 'big', wanted one of demo, tutorial"):
        preset("big")
