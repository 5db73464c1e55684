"""accelerate and restore, on a model made for it and on a published one."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch", reason="without PyTorch")
pytest.importorskip("fastrnn._C", reason="installed without the native library")

import fastrnn.torch


class Encoder(torch.nn.LSTM):
    def forward(self, input, hx=None):
        return super().forward(2 * input, hx)


def model():
    torch.manual_seed(3)
    return torch.nn.ModuleDict(
        {
            "lstm": torch.nn.LSTM(4, 150, batch_first=True),
            "gru": torch.nn.GRU(4, 6, 2),
            "nested": torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.RNN(4, 6)),
            "wide": torch.nn.GRU(4, 6, dtype=torch.float64),
            "projected": torch.nn.LSTM(4, 6, proj_size=2),
            "cell": torch.nn.LSTMCell(4, 6),
            "encoder": Encoder(4, 6),
        }
    )


def test_layers_are_replaced_in_place_and_restored():
    net = model()
    before = dict(net.named_modules())
    parameters = dict(net.named_parameters())
    called = []
    net["gru"].register_forward_hook(lambda *arguments: called.append("gru"))
    report = fastrnn.torch.accelerate(net)
    assert [(r.path, r.kind) for r in report.replaced] == [
        ("lstm", "LSTM"),
        ("gru", "GRU"),
        ("nested.1", "RNN"),
        ("projected", "LSTM"),
    ]
    assert all(r.backend.startswith("native: ") for r in report.replaced)
    left = {each.path: each.reason for each in report.left}
    assert set(left) == {"wide", "cell", "encoder"}
    assert "float64" in left["wide"]
    assert "derived" in left["encoder"]
    assert str(report).count("\n") == 6
    assert type(net["lstm"]) is fastrnn.torch.LSTM
    assert type(net["wide"]) is torch.nn.GRU
    x = torch.randn(20, 3, 4)
    assert net["gru"].backend_for(x).name == "native"
    net["gru"](x)
    assert called == ["gru"]
    assert dict(net.named_modules()) == before
    assert all(p is parameters[name] for name, p in net.named_parameters())
    assert "already" in fastrnn.torch.accelerate(net).left[0].reason
    net["made"] = fastrnn.torch.GRU(2, 3)
    report = fastrnn.torch.restore(net)
    assert [r.path for r in report.replaced] == ["lstm", "gru", "nested.1", "projected"]
    assert [each.path for each in report.left] == ["made"]
    del net["made"]
    assert type(net["lstm"]) is torch.nn.LSTM
    assert type(net["nested"][1]) is torch.nn.RNN
    assert net.state_dict().keys() == model().state_dict().keys()


def test_the_model_may_be_the_layer():
    layer = torch.nn.GRU(4, 6)
    assert [r.path for r in fastrnn.torch.accelerate(layer, "native").replaced] == [""]
    assert layer.backend_for(torch.ones(1, 1, 4)).name == "native"
    assert type(layer) is fastrnn.torch.GRU
    fastrnn.torch.restore(layer)
    assert type(layer) is torch.nn.GRU
    assert vars(layer).keys() == vars(torch.nn.GRU(4, 6)).keys()
    assert str(fastrnn.torch.accelerate(torch.nn.Linear(2, 2))) == "no recurrent layers"
    with pytest.raises(ValueError, match="backend is 'gluon', expected one of auto, native"):
        fastrnn.torch.accelerate(layer, "gluon")
    for function in (fastrnn.torch.accelerate, fastrnn.torch.restore):
        with pytest.raises(TypeError, match="expected a torch.nn.Module, got list"):
            function([layer])


def test_a_parametrized_layer_stays_until_it_is_none():
    layer = torch.nn.GRU(4, 6)
    fastrnn.torch.accelerate(layer)
    torch.nn.utils.parametrizations.weight_norm(layer, "weight_hh_l0")
    assert "derived" in fastrnn.torch.restore(layer).left[0].reason
    torch.nn.utils.parametrize.remove_parametrizations(layer, "weight_hh_l0")
    assert fastrnn.torch.restore(layer).replaced
    assert type(layer) is torch.nn.GRU


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_published_tagger_learns_the_same(cell):
    """BiRnnCrf of PyPI's bi-lstm-crf: packed sequences, both directions, a CRF on top."""
    tagger = pytest.importorskip("bi_lstm_crf", reason="without bi-lstm-crf")
    torch.manual_seed(1)
    words = torch.randint(1, 50, (6, 25))
    for row, length in enumerate((25, 11, 25, 3, 18, 7)):
        words[row, length:] = 0
    tags = words % 5

    def train(net):
        optimizer = torch.optim.Adam(net.parameters(), 0.02)
        losses = []
        for _ in range(12):
            optimizer.zero_grad()
            loss = net.loss(words, tags)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    torch.manual_seed(2)
    net = tagger.BiRnnCrf(50, 5, 16, 24, num_rnn_layers=2, rnn=cell)
    fast = copy.deepcopy(net)
    assert [r.path for r in fastrnn.torch.accelerate(fast).replaced] == ["rnn"]
    ran_on = []
    fast.rnn.register_forward_pre_hook(
        lambda layer, given: ran_on.append(layer.backend_for(*given).name)
    )
    losses = train(net)
    assert train(fast) == pytest.approx(losses, rel=1e-3)
    assert losses[-1] < 0.6 * losses[0]
    assert ran_on == ["native"] * 12
    for found, expected in zip(fast.parameters(), net.parameters()):
        torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)
