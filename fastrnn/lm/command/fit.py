"""A model and a number of epochs that take about as long as wanted: ``fastrnn train --fit``."""

from __future__ import annotations

import re
import time
from itertools import islice
from typing import Any, Callable, Dict, NamedTuple, Sequence

from fastrnn.lm.command.display import duration
from fastrnn.lm.command.sizes import sizes_for
from fastrnn.lm.config import Settings
from fastrnn.lm.data.corpus import encode_corpus
from fastrnn.lm.data.texts import Text
from fastrnn.lm.errors import InputError
from fastrnn.lm.training import Training
from fastrnn.mxnet import import_mxnet

mx = import_mxnet()

# Fewer epochs make a smaller model better; after more, hardly any learns something new.
FEWEST, MOST = 4, 40
_WARM_UP, _LEAST, _SECONDS = 3, 3, 1.0
# Of a pass forward and backward, what the forward pass alone takes, which validation needs.
_FORWARD = 0.4
_UNITS = {"s": 1, "m": 60, "h": 3600}


class Fit(NamedTuple):
    """What was chosen, and the seconds that an epoch of it takes."""

    settings: Settings
    epoch_seconds: float

    def __str__(self) -> str:
        chosen = self.settings
        layers = "1 layer" if chosen.layers == 1 else f"{chosen.layers} layers"
        each, all_of_them = duration(self.epoch_seconds), duration(self.seconds)
        return (
            f"{layers} of {chosen.hidden}, {chosen.batch} x {chosen.steps} tokens in a batch, "
            f"{chosen.epochs} epochs of {each}: about {all_of_them}"
        )

    @property
    def seconds(self) -> float:
        """What all epochs together take."""
        return self.settings.epochs * self.epoch_seconds


def seconds_of(text: str) -> float:
    """Seconds that a text such as 90s, 10m or 2h stands for."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not found or not float(found[1]):
        raise InputError(f"fit: got {text!r}, wanted a time such as 90s, 10m or 2h")
    return float(found[1]) * _UNITS[found[2]]


def epoch_seconds(training: Training) -> float:
    """How long an epoch takes, from its first batches."""
    steps = training.train_endlessly()
    for _ in islice(steps, _WARM_UP):
        pass
    mx.nd.waitall()
    begin = time.perf_counter()
    taken = targets = batches = 0.0
    while batches < _LEAST or taken < _SECONDS:
        targets += next(steps)[1]
        batches += 1
        taken = time.perf_counter() - begin
    mx.nd.waitall()
    taken = time.perf_counter() - begin
    settings, corpus = training.settings, training.corpus
    stride = settings.stride if settings.model == "unrolled" else 1
    tokens = len(corpus.train) / stride + _FORWARD * len(corpus.validation)
    return taken / targets * tokens


def fit(
    base: Settings,
    changes: Dict[str, Any],
    text: Text,
    contexts: Sequence[Any],
    seconds: float,
    measure: Callable[[Training], float] = epoch_seconds,
) -> Fit:
    """Choose the model for the size of `text`, or a smaller one that has enough epochs in the time.

    Parameters
    ----------
    base : Settings
        For what is not chosen.
    changes : dict
        What the user wants, which is never chosen otherwise.
    text : Text
    contexts : sequence of mxnet.Context
    seconds : float
        All epochs together.
    measure : callable
        Gives the seconds of an epoch.
    """
    tied = changes.get("tie_weights", base.tie_weights)
    wanted = base.updated({**changes, "tie_weights": False})
    tokens = len(encode_corpus(text, wanted).train)
    fewest = wanted.epochs if "epochs" in changes else FEWEST
    for size in sizes_for(tokens):
        embed = {"embed": changes.get("hidden", size["hidden"])} if tied else {}
        settings = base.updated({**size, **embed, **changes})
        one = measure(Training(settings, text, contexts))
        if one * fewest <= seconds:
            break
    epochs = changes.get("epochs", max(1, int(min(MOST, seconds / one))))
    # The rate falls in the last third.
    schedule = {"epochs": epochs, "decay": 0.7, "decay_after": max(1, 2 * epochs // 3)}
    return Fit(settings.updated({**schedule, **changes}), one)
