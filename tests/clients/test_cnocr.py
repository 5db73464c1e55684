"""CnOCR 1.2: convolutions and a recurrent layer, as symbols that a Module trains."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from compared import close, mx

import fastrnn

crnn = pytest.importorskip("cnocr.symbols.crnn")
from cnocr.hyperparams.cn_hyperparams import CnHyperparams  # noqa: E402

BATCH, WIDTH, LABELS, CLASSES = 4, 80, 4, 11


def network(name, context):
    hp = CnHyperparams()
    hp._batch_size, hp._img_width, hp._num_label, hp._num_classes = BATCH, WIDTH, LABELS, CLASSES
    hp._drop_out, hp._num_hidden = 0.0, 32
    with context, mx.name.NameManager():
        return crnn.gen_network(name, hp, net_prefix="net_")[0]


def bound(symbol, parameters=None):
    """A Module with one batch; its parameters are given, or drawn from a seed."""
    module = mx.mod.Module(symbol, data_names=["data"], label_names=["label"])
    shapes = [("data", (BATCH, 1, 32, WIDTH))], [("label", (BATCH, LABELS))]
    module.bind(*shapes)
    mx.random.seed(3)
    module.init_params(mx.init.Xavier())
    if parameters:
        module.set_params(*parameters)
    rng = np.random.RandomState(1)
    batch = mx.io.DataBatch(
        [mx.nd.array(rng.rand(BATCH, 1, 32, WIDTH))],
        [mx.nd.array(rng.randint(1, CLASSES, (BATCH, LABELS)))],
    )
    return module, batch


@pytest.mark.parametrize("name", ["densenet-lite-s-gru", "conv-lite-s-lstm"])
def test_networks(name):
    symbols = [network(name, c) for c in (contextlib.nullcontext(), fastrnn.accelerated())]
    operators = [{n["op"] for n in json.loads(s.tojson())["nodes"]} for s in symbols]
    assert "RNN" in operators[0] - operators[1]
    assert "_fastrnn_rnn" in operators[1]
    gluons, batch = bound(symbols[0])
    ours, _ = bound(symbols[1], gluons.get_params())
    results = []
    for module in (gluons, ours):
        module.forward(batch, is_train=True)
        module.backward()
        executor = module._exec_group.execs[0]
        gradients = {n: g.asnumpy() for n, g in executor.grad_dict.items() if g is not None}
        results.append(([a.asnumpy() for a in module.get_outputs()], gradients))
    for got, wanted in zip(results[1][0], results[0][0]):
        close(got, wanted, "output")
    assert results[0][1].keys() == results[1][1].keys()
    # A bias below batch normalization has no gradient, but rounding errors.
    least = max(np.abs(gradient).max() for gradient in results[0][1].values())
    for key, wanted in results[0][1].items():
        close(results[1][1][key], wanted, key, least)
    ours.init_optimizer(optimizer="adam", optimizer_params={"learning_rate": 1e-3})
    losses = []
    for _ in range(8):
        ours.forward(batch, is_train=True)
        losses.append(float(ours.get_outputs()[0].asnumpy().mean()))
        ours.backward()
        ours.update()
    assert np.isfinite(losses).all()
