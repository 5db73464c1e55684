"""GluonTS 0.11: networks for time series."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from compared import check, mx

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("gluonts.mx")
    from gluonts.mx.block.encoder import RNNEncoder
    from gluonts.mx.block.feature import FeatureEmbedder
    from gluonts.mx.block.rnn import RNN
    from gluonts.mx.distribution import StudentTOutput
    from gluonts.mx.model.canonical._network import CanonicalTrainingNetwork
    from gluonts.mx.model.deepar._network import DeepARTrainingNetwork
    from gluonts.mx.model.lstnet._network import LSTNetTrain
    from gluonts.mx.model.tpp.deeptpp._network import DeepTPPTrainingNetwork


def series(*shape):
    return mx.nd.array(np.random.RandomState(3).uniform(0.1, 1, shape))


@pytest.mark.parametrize("mode", ["lstm", "gru", "rnn_tanh", "rnn_relu"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_encoder_of_mqrnn(mode, bidirectional):
    net = RNNEncoder(mode, 50, 2, bidirectional, use_static_feat=False, use_dynamic_feat=True)
    net.initialize()
    arguments = series(32, 30, 1), mx.nd.zeros((32, 1)), series(32, 30, 4)
    check(net, lambda net: net(*arguments), replaced=1)


def test_deep_tpp():
    net = DeepTPPTrainingNetwork(num_marks=3, interval_length=20.0)
    net.initialize()
    times = series(16, 20, 1)
    marks = mx.nd.array(np.random.RandomState(1).randint(0, 3, (16, 20, 1)))
    target, lengths = mx.nd.concat(times, marks, dim=-1), mx.nd.full(16, 20)
    check(net, lambda net: net(target, lengths), replaced=1)


@pytest.mark.parametrize("mode", ["lstm", "gru"])
def test_canonical_rnn(mode):
    net = CanonicalTrainingNetwork(
        model=RNN(mode, 50, 2),
        embedder=FeatureEmbedder(cardinalities=[4], embedding_dims=[10]),
        distr_output=StudentTOutput(),
        is_sequential=True,
    )
    net.initialize()
    arguments = mx.nd.zeros((32, 1)), series(32, 30, 3), series(32, 30)
    check(net, lambda net: net(*arguments), replaced=1)


def deepar(cell):
    return DeepARTrainingNetwork(
        num_layers=2, num_cells=40, cell_type=cell, history_length=40, context_length=30,
        prediction_length=10, distr_output=StudentTOutput(), dropout_rate=0.0, cardinality=[4],
        embedding_dimension=[2], lags_seq=[1, 2, 7],
    )  # fmt: skip


@pytest.mark.parametrize("hybrid", [False, True], ids=["eager", "hybridized"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_deepar(cell, hybrid):
    net = deepar(cell)
    net.initialize()
    net.hybridize(hybrid)
    arguments = [
        mx.nd.zeros((32, 1)), mx.nd.zeros((32, 1)), series(32, 40, 3), series(32, 40),
        mx.nd.ones((32, 40)), mx.nd.zeros((32, 40)), series(32, 10, 3), series(32, 10),
        mx.nd.ones((32, 10)),
    ]  # fmt: skip
    check(net, lambda net: net(*arguments), replaced=2)


@pytest.mark.parametrize("hybrid", [False, True], ids=["eager", "hybridized"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_lstnet(cell, hybrid):
    net = LSTNetTrain(
        num_series=4, channels=18, kernel_size=4, rnn_cell_type=cell, rnn_num_layers=1,
        rnn_num_cells=40, skip_rnn_cell_type=cell, skip_rnn_num_layers=1, skip_rnn_num_cells=10,
        skip_size=6, ar_window=12, context_length=48, lead_time=0, prediction_length=6,
        dropout_rate=0.0, output_activation=None, scaling=True, dtype=np.float32,
    )  # fmt: skip
    net.initialize()
    net.hybridize(hybrid)
    arguments = series(16, 4, 48), mx.nd.ones((16, 4, 48)), series(16, 4, 6), mx.nd.ones((16, 4, 6))
    check(net, lambda net: net(*arguments), replaced=2)
