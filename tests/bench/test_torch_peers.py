"""What works on PyTorch, on the CPU: stand-ins of FlashRNN and Haste, and language models."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="without PyTorch")

from bench import data, language_model
from bench.cases import CELLS, Case
from bench.peers.flashrnn import FlashrnnLayer
from bench.peers.haste import HasteLayer
from bench.peers.pytorch import PytorchModel, module_of

SMALL = {"inputs": 5, "hidden": 9, "batch": 3, "steps": 4}


def flashrnn(gates, matrix, bias, states, function, backend, dtype):
    """The recurrence that FlashRNN documents, one head of it."""
    state = [s[:, 0, 0] for s in states]  # [N, H] each
    outputs = []
    for t in range(gates.shape[1]):
        of_input = gates[:, t, :, 0]
        of_state = torch.einsum("gdp,np->ngd", matrix[:, 0], state[0])
        if function == "gru":
            g = of_state[:, 0] + bias[0, 0]
            r = torch.sigmoid(of_input[:, 0] + of_state[:, 1] + bias[1, 0])
            z = torch.sigmoid(of_input[:, 1] + of_state[:, 2] + bias[2, 0])
            n = torch.tanh(of_input[:, 2] + bias[3, 0] + r * g)
            state = [z * state[0] + (1 - z) * n]
        elif function == "elman":
            state = [torch.tanh(of_input[:, 0] + of_state[:, 0] + bias[0, 0])]
        else:
            i, f, g, o = (of_input + of_state + bias[:, 0]).unbind(1)
            c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
            state = [torch.sigmoid(o) * torch.tanh(c), c]
        outputs.append(torch.stack(state)[:, :, None])
    found = torch.stack(outputs, 2)  # [S, N, T, 1, H]
    return found, found[:, :, -1:]


class HasteBase(torch.nn.Module):
    gates, biases = 4, ("bias",)

    def __init__(self, inputs, hidden):
        super().__init__()
        columns, self.hidden = self.gates * hidden, hidden
        self.kernel = torch.nn.Parameter(torch.empty(inputs, columns))
        self.recurrent_kernel = torch.nn.Parameter(torch.empty(hidden, columns))
        for name in self.biases:
            setattr(self, name, torch.nn.Parameter(torch.empty(columns)))

    def forward(self, x):
        h = c = torch.zeros(x.shape[1], self.hidden)
        outputs = []
        for step in x:
            h, c = self.step(step @ self.kernel + self.bias, h @ self.recurrent_kernel, h, c)
            outputs.append(h)
        return torch.stack(outputs), None


class LSTM(HasteBase):
    def step(self, of_input, of_state, h, c):
        i, g, f, o = (of_input + of_state).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class GRU(HasteBase):
    gates, biases = 3, ("bias", "recurrent_bias")

    def step(self, of_input, of_state, h, c):
        xz, xr, xn = of_input.chunk(3, 1)
        hz, hr, hn = (of_state + self.recurrent_bias).chunk(3, 1)
        z = torch.sigmoid(xz + hz)
        n = torch.tanh(xn + torch.sigmoid(xr + hr) * hn)
        return z * h + (1 - z) * n, c


def check(layer, case, values):
    layer.run(0)
    assert data.difference(case, layer.results(), data.expected(case, values)) is None


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh"])
def test_flashrnn_s_gates_are_in_their_places(cell, train):
    case = Case(cell, train=train, **SMALL)
    values = data.draw(case)
    check(FlashrnnLayer(torch, flashrnn, case, values, "cpu"), case, values)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_haste_s_gates_are_in_their_places(cell, train):
    case = Case(cell, train=train, **SMALL)
    values = data.draw(case)
    library = SimpleNamespace(LSTM=LSTM, GRU=GRU)
    check(HasteLayer(torch, library, case, values, "cpu"), case, values)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_models_on_both_libraries_are_the_same(cell, train):
    import fastrnn.torch as ours

    task = "lm training" if train else "lm generation"
    case = Case(cell, task=task, train=train, **{**SMALL, "steps": 4 if train else 1})
    text = language_model.draw(case)
    models = [
        PytorchModel(case, text, "cpu", module_of(case, library)) for library in (torch.nn, ours)
    ]
    wanted = language_model.expected(case, text)
    for call in range(4):
        for model in models:
            model.run(0)
            if call == 0:
                assert data.difference(case, model.results(), wanted) is None
        first, second = (model.results() for model in models)
        for name, array in first.items():
            assert second[name] == pytest.approx(array, rel=1e-4, abs=1e-6)
    assert all(model.uncapturable for model in models)
