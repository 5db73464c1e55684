"""Dive into Deep Learning's package, with MXNet's NumPy arrays."""

from __future__ import annotations

import numpy as np
import pytest
from compared import check, mx

d2l = pytest.importorskip("d2l.mxnet")


@pytest.fixture(autouse=True)
def _numpy():
    mx.npx.set_np()
    yield
    mx.npx.reset_np()


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_rnn_model(kind):
    net = d2l.RNNModel(getattr(mx.gluon.rnn, kind)(256), 28)
    net.initialize()
    x = mx.np.array(np.random.RandomState(1).randint(0, 28, (32, 35)))
    check(net, lambda net: net(x, net.begin_state(32, ctx=mx.cpu())), replaced=1)


def test_seq2seq_encoder():
    net = d2l.Seq2SeqEncoder(50, 32, 64, 2)
    net.initialize()
    x = mx.np.array(np.random.RandomState(1).randint(0, 50, (64, 10)))
    check(net, lambda net: net(x), replaced=1)
