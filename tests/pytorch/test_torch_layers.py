"""fastrnn.torch's layers against PyTorch's own in float64: outputs, states and every gradient."""

from __future__ import annotations

import processor
import pytest
import reference as ref

torch = pytest.importorskip("torch", reason="without PyTorch")
pytest.importorskip("fastrnn._C", reason="installed without the native library")

from pairs import CELLS, compare, pair, states_for

import fastrnn.torch
from fastrnn import kernels

SIZES = [(1, 1, 1, 1), (2, 3, 5, 7), (9, 4, 3, 17), (33, 2, 10, 31)]  # T, N, I, H


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(5)


@pytest.mark.parametrize("with_states", [True, False])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("cell", CELLS)
def test_a_layer_is_pytorch_s(cell, size, with_states):
    T, N, inputs, H = size
    theirs, ours = pair(cell, inputs, H)
    hx = states_for(cell, ours, N) if with_states else None
    compare(theirs, ours, torch.randn(T, N, inputs), hx)


@pytest.mark.parametrize(
    "options",
    [
        {"layers": 3},
        {"bidirectional": True},
        {"layers": 2, "bidirectional": True, "batch_first": True},
        {"layers": 2, "bias": False},
        {"bidirectional": True, "bias": False, "batch_first": True},
    ],
    ids="-".join,
)
@pytest.mark.parametrize("cell", CELLS)
def test_options(cell, options):
    theirs, ours = pair(cell, 5, 9, **options)
    x = torch.randn(4, 3, 5) if options.get("batch_first") else torch.randn(3, 4, 5)
    compare(theirs, ours, x, states_for(cell, ours, 4))
    with torch.no_grad():
        assert not ours(x)[0].requires_grad
        ref.assert_close(ours(x)[0], theirs(x.double())[0].numpy())


# A derivative of ReLU that rounding decides is not PyTorch's in float64.
@pytest.mark.parametrize(
    ("dtype", "cell"),
    [(torch.float64, cell) for cell in CELLS]
    + [(t, cell) for t in (torch.float16, torch.bfloat16) for cell in CELLS if cell != "rnn_relu"],
)
def test_other_types(dtype, cell):
    theirs, ours = pair(cell, 5, 9, 2, bidirectional=True)
    assert ours.to(dtype).backend.name == "native"
    theirs.load_state_dict(ours.state_dict())
    x, hx = torch.randn(3, 4, 5).to(dtype), states_for(cell, ours, 4)
    hx = tuple(h.to(dtype) for h in hx) if cell == "lstm" else hx.to(dtype)
    compare(theirs, ours, x, hx, dtype=dtype)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False},
        {"layers": 2, "bidirectional": True},
        {"layers": 2, "bidirectional": True, "bias": False},
    ],
    ids="-".join,
)
def test_projection(options):
    theirs, ours = pair("lstm", 5, 9, proj_size=4, **options)
    assert ours.backend.name == "native"
    hx = states_for("lstm", ours, 4)
    compare(theirs, ours, torch.randn(3, 4, 5), hx)
    compare(theirs, ours, torch.randn(3, 4, 5))
    compare(theirs, ours, torch.randn(6, 5), states_for("lstm", ours, None))
    rows = [torch.randn(length, 5) for length in (2, 6, 1, 4)]
    compare(theirs, ours, torch.nn.utils.rnn.pack_sequence(rows, enforce_sorted=False), hx)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_input_without_a_batch(cell, batch_first):
    theirs, ours = pair(cell, 5, 9, 2, batch_first=batch_first)
    compare(theirs, ours, torch.randn(6, 5), states_for(cell, ours, None))
    compare(theirs, ours, torch.randn(6, 5))


@pytest.mark.parametrize(
    "lengths",
    [[6, 4, 4, 1], [2, 6, 1, 4], [3, 3], [1], [1, 9]],
    ids=lambda n: "-".join(map(str, n)),
)
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_packed_sequences(cell, bidirectional, lengths):
    theirs, ours = pair(cell, 5, 9, 2, bidirectional=bidirectional, batch_first=True)
    rows = [torch.randn(length, 5) for length in lengths]
    longest_first = lengths == sorted(lengths, reverse=True)
    packed = torch.nn.utils.rnn.pack_sequence(rows, enforce_sorted=longest_first)
    assert ours.backend_for(packed).name == "native"
    compare(theirs, ours, packed, states_for(cell, ours, len(rows)))
    compare(theirs, ours, packed)


@pytest.mark.parametrize("wanted", [["output"], ["h_n"], ["c_n"]])
def test_gradients_of_a_part_of_the_results(wanted, monkeypatch):
    heads, call = [], kernels.backward

    def watched(reserve, *given, **options):
        heads.extend(name for name, d in zip(("output", "h_n", "c_n"), given) if d is not None)
        return call(reserve, *given, **options)

    monkeypatch.setattr(kernels, "backward", watched)
    theirs, ours = pair("lstm", 5, 9)
    compare(theirs, ours, torch.randn(4, 3, 5), states_for("lstm", ours, 3), wanted=wanted)
    assert heads == sorted({"output", *wanted}, reverse=True)  # no gradients of zeros


def test_gradients_of_some_parameters_alone():
    theirs, ours = pair("gru", 5, 9, 2)
    found = []
    for layer, dtype in ((theirs, torch.float64), (ours, torch.float32)):
        layer.requires_grad_(False)
        layer.weight_hh_l1.requires_grad_(True)
        torch.manual_seed(3)
        layer(torch.randn(4, 3, 5).to(dtype))[0].pow(2).sum().backward()
        assert [name for name, p in layer.named_parameters() if p.grad is not None] == [
            "weight_hh_l1"
        ]
        found.append(layer.weight_hh_l1.grad)
    torch.manual_seed(3)
    x = torch.randn(4, 3, 5)
    theirs.zero_grad()
    theirs(x.double())[0].pow(2).sum().backward()
    ref.assert_close(found[1], theirs.weight_hh_l1.grad.numpy())


@pytest.mark.parametrize("rate", [0.4, 1.0])
@pytest.mark.parametrize("cell", CELLS)
def test_dropout_draws_what_pytorch_draws(cell, rate):
    theirs, ours = pair(cell, 5, 9, 3, bidirectional=True, dropout=rate)
    theirs = theirs.float()
    x = torch.randn(7, 4, 5)
    for training in (True, False):
        found = []
        for layer in (theirs, ours):
            torch.manual_seed(8)
            layer.train(training).zero_grad()
            output, _ = layer(x)
            output.pow(2).sum().backward()
            found.append([output, *(p.grad for p in layer.parameters())])
        torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.randn(4, 5, 6, 7),
        lambda: torch.randn(4, 2, 6),
        lambda: torch.randn(4, 2, 5, dtype=torch.float64),
        lambda: torch.randn(0, 2, 5),
        lambda: (torch.randn(4, 2, 5), (torch.zeros(1, 2, 9), torch.zeros(1, 3, 9))),
        lambda: (torch.randn(4, 2, 5), (torch.zeros(1, 9), torch.zeros(1, 9))),
        lambda: (torch.randn(4, 5), (torch.zeros(1, 1, 9), torch.zeros(1, 1, 9))),
        lambda: (torch.randn(4, 2, 5), (torch.zeros(1, 2, 9).double(),) * 2),
        lambda: (torch.randn(4, 2, 5), torch.zeros(1, 2, 9)),
    ],
)
def test_errors_are_pytorch_s(make):
    given = make()
    given = given if isinstance(given, tuple) else (given,)
    raised = []
    for layer in (torch.nn.LSTM(5, 9), fastrnn.torch.LSTM(5, 9)):
        with pytest.raises(Exception) as caught:
            layer(*given)
        raised.append((caught.type, str(caught.value)))
    assert raised[0] == raised[1]


def test_what_the_kernels_cannot_do_runs_on_pytorch_and_says_why():
    x = torch.randn(4, 3, 5)
    double = fastrnn.torch.GRU(5, 9, dtype=torch.float64)
    assert double.backend.name == "torch"
    assert "float64" in double.backend.reason
    assert double.float().backend.name == "native"
    asked = fastrnn.torch.RNN(5, 9, backend="torch")
    assert str(asked.backend) == "torch: backend='torch'"
    torch.manual_seed(1)
    plain = torch.nn.RNN(5, 9)
    asked.load_state_dict(plain.state_dict())
    assert torch.equal(asked(x)[0], plain(x)[0])
    with torch.autocast("cpu", torch.bfloat16):
        layer = fastrnn.torch.LSTM(5, 9)
        assert "bfloat16" in layer.backend_for(x).reason
        if processor.has("avx512bw"):  # PyTorch's LSTM needs it
            assert layer(x)[0].dtype == torch.bfloat16
    with pytest.raises(ValueError, match="backend is 'cudnn', expected one of auto, native, torch"):
        fastrnn.torch.LSTM(5, 9, backend="cudnn")
