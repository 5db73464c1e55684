"""The networks against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import reference as ref

from fastrnn.lm import InputError, preset
from fastrnn.lm.config import CELLS, Settings
from fastrnn.lm.models import (
    LanguageModel,
    UnrolledRNN,
    build_model,
    parameter_values,
    parameters_of,
    set_parameter_values,
)
from fastrnn.mxnet import import_mxnet

mx = import_mxnet()


def tokens_of(shape, vocab_size, seed=0):
    return np.random.default_rng(seed).integers(0, vocab_size, shape).astype(np.int32)


def close(got, wanted):
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(got, wanted, rtol=0, atol=ref.TOLERANCE["float32"] * scale)


@pytest.mark.parametrize("hybrid", [False, True])
@pytest.mark.parametrize("window", [1, 2, 3, 7])
def test_unrolled(window, hybrid):
    model = UnrolledRNN(11, embed=5, hidden=6, window=window)
    model.initialize(mx.init.Uniform(0.5))
    if hybrid:
        model.hybridize()
    tokens = tokens_of((4, window), 11)
    got = model(mx.nd.array(tokens, dtype="int32")).asnumpy()

    value = {name: array.astype(np.float64) for name, array in parameter_values(model).items()}

    def dense(number, x, relu=True):
        y = x @ value[f"dense{number}.weight"].T + value[f"dense{number}.bias"]
        return np.maximum(y, 0) if relu else y

    embedded = value["embedding.weight"][tokens]
    hidden = dense(1, embedded[:, 0])
    for place in range(1, window):
        hidden = dense(2, hidden) + dense(1, embedded[:, place])
    close(got, dense(3, hidden, relu=False))


@pytest.mark.parametrize("hybrid", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_language_model(cell, layers, hybrid):
    model = LanguageModel(13, cell=cell, embed=5, hidden=7, layers=layers, dropout=0.5)
    model.initialize(mx.init.Uniform(0.3))
    if hybrid:
        model.hybridize()
    tokens = tokens_of((6, 3), 13)
    states = model.begin_state(3, func=mx.nd.random.uniform)
    logits, after = model(mx.nd.array(tokens, dtype="int32"), states)

    value = {name: array.astype(np.float64) for name, array in parameter_values(model).items()}
    weights = [
        ref.Weights(*(value[f"rnn.{name}"] for name in rnn_names(model, layer)))
        for layer in range(layers)
    ]
    begin = [state.asnumpy().astype(np.float64) for state in states]
    c0 = begin[1] if cell == "lstm" else None
    embedded = value["embedding.weight"][tokens]
    result = ref.stack_forward(cell, embedded, begin[0], c0, weights, directions=1)
    close(logits.asnumpy(), result.output @ value["decoder.weight"].T + value["decoder.bias"])
    close(after[0].asnumpy(), result.h)
    if cell == "lstm":
        close(after[1].asnumpy(), result.c)


def rnn_names(model, layer):
    names = [name[len("rnn.") :] for name in parameters_of(model) if name.startswith("rnn.")]
    return names[4 * layer : 4 * layer + 4]


@pytest.mark.parametrize("cell", CELLS)
def test_carried_state_goes_on_where_it_was(cell):
    model = LanguageModel(9, cell=cell, embed=4, hidden=5, layers=2)
    model.initialize(mx.init.Uniform(0.5))
    tokens = mx.nd.array(tokens_of((8, 2), 9), dtype="int32")
    whole, _ = model(tokens, model.begin_state(2))
    states = model.begin_state(2)
    parts = []
    for begin, end in ((0, 1), (1, 5), (5, 8)):
        logits, states = model(tokens[begin:end], states)
        parts.append(logits.asnumpy())
    close(np.concatenate(parts), whole.asnumpy())


@pytest.mark.parametrize("cell", CELLS)
def test_a_hybridized_model_computes_what_an_eager_one_does(cell, tmp_path):
    model = LanguageModel(9, cell=cell, embed=4, hidden=5, layers=2, dropout=0.5)
    model.initialize(mx.init.Uniform(0.5))
    tokens, states = mx.nd.array(tokens_of((8, 2), 9), dtype="int32"), model.begin_state(2)
    eager = model(tokens, states)
    model.hybridize()
    traced = model(tokens, states)
    model.export(str(tmp_path / "model"))
    names = ["data0", *(f"data{k + 1}" for k in range(len(states)))]
    files = [str(tmp_path / name) for name in ("model-symbol.json", "model-0000.params")]
    exported = mx.gluon.SymbolBlock.imports(files[0], names, files[1])(tokens, *states)
    with mx.autograd.record(train_mode=False):
        recorded = model(tokens, states)
    for outcome in traced, recorded, (exported[0], exported[1:]):
        close(outcome[0].asnumpy(), eager[0].asnumpy())
        for ours, theirs in zip(outcome[1], eager[1]):
            close(ours.asnumpy(), theirs.asnumpy())


def test_begin_state_is_gluons():
    model = LanguageModel(9, cell="lstm", hidden=5, layers=2)
    states = model.begin_state(3, ctx=mx.cpu(1))
    assert [state.shape for state in states] == [(2, 3, 5), (2, 3, 5)]
    assert states[0].context == mx.cpu(1)
    ones = model.begin_state(3, func=mx.nd.ones)
    assert ones[1].asnumpy().min() == 1


@pytest.mark.parametrize("hybrid", [False, True])
def test_tied_weights(hybrid):
    model = LanguageModel(9, embed=5, hidden=5, tie_weights=True)
    model.initialize(mx.init.Uniform(0.5))
    if hybrid:
        model.hybridize()
    assert model.decoder.weight is model.embedding.weight
    assert "decoder.weight" not in parameters_of(model)
    tokens = mx.nd.array([[1], [2]], dtype="int32")
    with mx.autograd.record():
        logits, _ = model(tokens, model.begin_state(1))
    logits.backward()
    gradient = model.embedding.weight.grad().asnumpy()
    # As a decoder's weight every row has a gradient, not only the rows of the tokens read.
    assert (np.abs(gradient).sum(axis=1) > 0).all()


def test_bad_sizes():
    with pytest.raises(InputError, match=r"cell: got 'elman', wanted one of lstm, gru"):
        LanguageModel(9, cell="elman")
    with pytest.raises(InputError, match="embed and hidden to be the same, got 64 and 256"):
        LanguageModel(9, tie_weights=True)
    with pytest.raises(InputError, match="window: got 0"):
        UnrolledRNN(9, window=0)


@pytest.mark.parametrize(
    "options",
    [
        {"dropout": 0.5, "layers": 2},
        {"dropout": 0.5},
        {"embed_dropout": 0.5},
        {"weight_dropout": 0.5},
    ],
)
def test_dropout_is_for_training_only(options):
    model = LanguageModel(9, hidden=8, **options)
    model.initialize()
    tokens = mx.nd.array(tokens_of((5, 2), 9), dtype="int32")
    first, second = (model(tokens, model.begin_state(2))[0].asnumpy() for _ in range(2))
    np.testing.assert_array_equal(first, second)
    with mx.autograd.record():
        dropped = model(tokens, model.begin_state(2))[0].asnumpy()
    assert np.abs(dropped - first).max() > 0


def test_parameter_values_that_do_not_fit():
    model = LanguageModel(9, hidden=5)
    model.initialize()
    values = parameter_values(model)
    other = LanguageModel(10, hidden=5)
    other.initialize()
    with pytest.raises(
        InputError, match=r"embedding\.weight has shape \(9, 64\), wanted \(10, 64\)"
    ):
        set_parameter_values(other, values)
    del values["decoder.bias"]
    with pytest.raises(InputError, match=r"'decoder\.bias' is only in one of"):
        set_parameter_values(model, values)


def test_the_tutorials_networks():
    unrolled = build_model(preset("unrolled"), 84)
    assert {name: p.shape for name, p in parameters_of(unrolled).items()} == {
        "embedding.weight": (84, 30),
        "dense1.weight": (256, 30),
        "dense1.bias": (256,),
        "dense2.weight": (256, 256),
        "dense2.bias": (256,),
        "dense3.weight": (84, 256),
        "dense3.bias": (84,),
    }
    tutorial = build_model(preset("tutorial"), 84)
    shapes = [p.shape for p in parameters_of(tutorial).values()]
    assert shapes == [
        (84, 50),
        *[(4000, 50), (4000, 1000), (4000,), (4000,)],
        *[(4000, 1000), (4000, 1000), (4000,), (4000,)],
        *[(84, 1000), (84,)],
    ]
    assert tutorial.dropout._rate == tutorial.rnn._dropout == 0.4


def test_settings_reach_the_recurrent_layers():
    settings = Settings(dropout=0.3, weight_dropout=0.5, layers=2)
    assert build_model(settings, 9).rnn._rates == (0.3, 0.5, 0, 0)
