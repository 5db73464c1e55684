"""GluonNLP 0.10: language models with layers, and with cells."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from compared import check, close, flat, mx

import fastrnn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    nlp = pytest.importorskip("gluonnlp")

T, N, V = 35, 20, 200
MODES = ["lstm", "gru", "rnn_tanh"]


def tokens(steps=T, rows=N):
    return mx.nd.array(np.random.RandomState(2).randint(0, V, (steps, rows)))


def standard(mode="lstm", **options):
    return nlp.model.train.StandardRNN(mode, V, 100, 100, 2, dropout=0.0, **options)


def awd(mode="lstm", weight_drop=0.5, cls=nlp.model.train.AWDRNN):
    drops = {"dropout": 0.0, "drop_h": 0.0, "drop_i": 0.0, "drop_e": 0.0}
    return cls(mode, V, 64, 100, 3, True, weight_drop=weight_drop, **drops)


def called(net):
    return net(tokens(), net.begin_state(batch_size=N, func=mx.nd.zeros))


# In AWDRNN, a mask of the recurrent weights takes the place of the layer's Parameters.
@pytest.mark.parametrize("hybrid", [False, True], ids=["eager", "hybridized"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("model", "layers"), [(standard, 1), (awd, 3)])
def test_language_models(model, layers, mode, hybrid):
    net = model(mode)
    net.initialize()
    net.hybridize(hybrid)
    check(net, called, replaced=layers)


@pytest.mark.parametrize("name", ["StandardRNN", "AWDRNN"])
def test_cache(name):
    model = awd(cls=nlp.model.AWDRNN)
    if name == "StandardRNN":
        model = nlp.model.StandardRNN("lstm", V, 100, 100, 2, 0.0, False)
    model.initialize()
    cache = nlp.model.train.CacheCell(model, V, window=8, theta=0.6, lambdas=0.2)

    def run():
        states = cache.begin_state(batch_size=1)
        history = cached = None
        found = []
        for part in np.split(tokens(16, 1).asnumpy(), 2):
            data = mx.nd.array(part)
            out, history, cached, states = cache(data, data, history, cached, states)
            found += flat([out, states])
        return [array.asnumpy() for array in found]

    wanted = run()
    assert fastrnn.accelerate(model).replaced
    for number, (got, array) in enumerate(zip(run(), wanted)):
        close(got, array, f"array {number}")


class Decoder:
    """One step of a language model, as the sampler wants it."""

    def __init__(self, net):
        self._net = net
        self.state_info = net.state_info

    def __call__(self, inputs, states):
        outputs, states = self._net(mx.nd.expand_dims(inputs, axis=0), states)[:2]
        return outputs[0], states


@pytest.mark.parametrize("make", [standard, awd])
def test_beam_search(make):
    net = make()
    net.initialize(mx.init.Normal(0.3))
    scorer = nlp.model.BeamSearchScorer(alpha=0.6, K=5)
    sampler = nlp.model.BeamSearchSampler(4, Decoder(net), 0, scorer, max_length=12)

    def run():
        states = net.begin_state(batch_size=2, func=mx.nd.zeros)
        return [array.asnumpy() for array in sampler(mx.nd.array([3, 7]), states)]

    wanted = run()
    assert fastrnn.accelerate(net).replaced
    for got, array in zip(run(), wanted):
        np.testing.assert_allclose(got, array, rtol=1e-4)


@pytest.mark.parametrize("hybrid", [False, True], ids=["eager", "hybridized"])
def test_bilm_encoder_of_elmo(hybrid):
    """Its cells have a projection and run in a loop of MXNet's; they are GluonNLP's own."""
    net = nlp.model.BiLMEncoder("lstmpc", 2, 16, 32, proj_size=16, cell_clip=3, proj_clip=3)
    net.initialize()
    net.hybridize(hybrid)
    x = mx.nd.random.uniform(shape=(12, 4, 16))

    def run(net):
        return net(x, net.begin_state(mx.nd.zeros, batch_size=4), mx.nd.ones((4, 12)))

    check(net, run, replaced=0, timed=False)


@pytest.mark.parametrize("mode", ["lstm", "gru"])
def test_bilm_encoder_of_usual_cells(mode):
    net = nlp.model.BiLMEncoder(mode, 2, 16, 16)
    net.initialize()
    x = mx.nd.random.uniform(shape=(12, 4, 16))

    def run(net):
        return net(x, net.begin_state(mx.nd.zeros, batch_size=4), mx.nd.ones((4, 12)))

    check(net, run, replaced=4, timed=False)
