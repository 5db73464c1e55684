"""The loss of a text, and how often suggestions are right."""

from __future__ import annotations

import numpy as np
import pytest
from small_runs import CPU, EVERY_KIND, SMALL, TEXT, trained

from fastrnn.lm import Settings, preset
from fastrnn.lm.evaluation import evaluate, loss_and_gradient, measure, predict, predicted
from fastrnn.lm.training import Training
from fastrnn.mxnet import import_mxnet

mx = import_mxnet()


def test_the_loss_is_cross_entropy():
    training = Training(preset("demo", **SMALL), TEXT, CPU)
    tokens = training.corpus.train[:24].reshape(6, 4)
    arrays = [mx.nd.array(a, dtype="int32") for a in (tokens[:-1], tokens[1:])]
    states = training.model.begin_state(4)
    logits, _ = predict(training.model, arrays[0], states)
    loss, _ = loss_and_gradient(logits, arrays[1])
    logits = logits.asnumpy().astype(float)
    likelihood = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    wanted = -np.take_along_axis(likelihood, tokens[1:, :, None], -1).sum()
    assert float(loss.asscalar()) == pytest.approx(wanted, rel=1e-5)


def test_evaluation_carries_the_state():
    training = Training(preset("demo", **{**SMALL, "batch": 1}), TEXT, CPU)
    numbers = training.corpus.train[:200]
    losses = [
        evaluate(training.model, numbers, training.settings.updated({"steps": steps}), mx.cpu())
        for steps in (7, 50, 199)
    ]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


@pytest.mark.parametrize(("model", "wanted"), [("language", (1, 101)), ("unrolled", (3, 103))])
def test_predicted_tokens(model, wanted):
    settings = Settings(model=model, batch=4, steps=20)
    assert predicted(np.arange(103), settings) == wanted


@pytest.mark.parametrize(("name", "changes"), EVERY_KIND)
def test_how_often_suggestions_are_right(name, changes):
    training = trained(preset(name, **{**SMALL, **changes, "validation": 0.2}), 1)
    model, settings, numbers = training.model, training.settings, training.corpus.validation
    vocabulary = training.corpus.vocabulary
    unknown = vocabulary.number("<unk>") if "<unk>" in vocabulary else None
    found = measure(model, numbers, settings, mx.cpu(), unknown)
    assert found.loss == evaluate(model, numbers, settings, mx.cpu())
    assert found.tokens == predicted(numbers, settings)[1] - predicted(numbers, settings)[0]
    counted = np.zeros(2)
    for scores, target in predictions(model, numbers, settings):
        best = [n for n in np.argsort(-scores, kind="stable") if n != unknown][:3]
        counted += [target == best[0], target in best]
    assert counted[0] > 0
    assert [found.first, found.first_three] == pytest.approx(counted / found.tokens)


def predictions(model, numbers, settings):
    """Logits and target of each token, by reading the streams of an evaluation one by one."""
    first, last = predicted(numbers, settings)
    if settings.model == "unrolled":
        for at in range(first, last):
            window = mx.nd.array(numbers[None, at - settings.window : at], dtype="int32")
            yield model(window).asnumpy()[0], numbers[at]
        return
    rows = min(settings.batch, (len(numbers) - 1) // settings.steps)
    for stream in np.arange(last - 1).reshape(rows, -1):
        tokens = mx.nd.array(numbers[stream][:, None], dtype="int32")
        logits, _ = predict(model, tokens, model.begin_state(1))
        yield from zip(logits.asnumpy()[:, 0], numbers[stream + 1])


def test_equally_likely_tokens_rank_by_their_number():
    class Even(mx.gluon.Block):
        def forward(self, tokens):
            return mx.nd.zeros((len(tokens), 5))

    numbers = np.array([0, 0, 0, 0, 1, 2, 3, 4], np.int32)
    settings = preset("unrolled", window=3)
    assert measure(Even(), numbers, settings, mx.cpu())[1:] == (0.2, 0.6, 5)
    assert measure(Even(), numbers, settings, mx.cpu(), unknown=0)[1:] == (0.2, 0.6, 5)
    assert measure(Even(), numbers, settings, mx.cpu(), unknown=1)[1:] == (0.2, 0.6, 5)
