"""Pairs of layers, PyTorch's own in float64 and ours, and their results."""

from __future__ import annotations

import pytest
import reference as ref

torch = pytest.importorskip("torch", reason="without PyTorch")
pytest.importorskip("fastrnn._C", reason="installed without the native library")

import fastrnn.torch

CELLS = {
    "lstm": ("LSTM", {}),
    "gru": ("GRU", {}),
    "rnn_tanh": ("RNN", {}),
    "rnn_relu": ("RNN", {"nonlinearity": "relu"}),
}


def pair(cell, inputs, hidden, layers=1, **options):
    """PyTorch's layer in float64, and ours on the kernels with the same parameters."""
    name, own = CELLS[cell]
    theirs = getattr(torch.nn, name)(inputs, hidden, layers, **own, **options)
    ours = getattr(fastrnn.torch, name)(inputs, hidden, layers, **own, **options, backend="native")
    ours.load_state_dict(theirs.state_dict())
    return theirs.double(), ours


def as_list(hx):
    return [] if hx is None else list(hx) if isinstance(hx, tuple) else [hx]


def results(layer, dtype, given, hx, wanted=("output", "h_n", "c_n")):
    """Output, final states and, of a sum over those wanted, every gradient."""
    layer.zero_grad()
    packed = isinstance(given, torch.nn.utils.rnn.PackedSequence)
    data = (given.data if packed else given).detach().to(dtype).requires_grad_()
    leaves = [state.detach().to(dtype).requires_grad_() for state in as_list(hx)]
    x = given._replace(data=data) if packed else data
    states = None if hx is None else tuple(leaves) if isinstance(hx, tuple) else leaves[0]
    output, finals = layer(x, states)
    if packed:
        assert output.sorted_indices is given.sorted_indices
        assert torch.equal(output.batch_sizes, given.batch_sizes)
        output = output.data
    found = dict(zip(("output", "h_n", "c_n"), [output, *as_list(finals)]))
    weights = {
        name: torch.linspace(-1, 1, array.numel(), dtype=dtype).view(array.shape)
        for name, array in found.items()
    }
    sum((found[name] * weights[name]).sum() for name in wanted if name in found).backward()
    found["d_x"] = data.grad
    found.update((f"d_state{k}", leaf.grad) for k, leaf in enumerate(leaves))
    found.update((f"d_{name}", p.grad) for name, p in layer.named_parameters())
    return found


def compare(theirs, ours, given, hx=None, dtype=torch.float32, **options):
    expected = results(theirs, torch.float64, given, hx, **options)
    found = results(ours, dtype, given, hx, **options)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        if array is None:  # a state that nothing depends on
            continue
        precision = str(dtype)[len("torch.") :]
        ref.assert_close(found[name].detach().double(), array.detach().numpy(), name, precision)
        assert found[name].stride() == array.stride()


def states_for(cell, layer, rows):
    count = layer.num_layers * (1 + layer.bidirectional)
    sizes = [layer.proj_size or layer.hidden_size, layer.hidden_size][: 1 + (cell == "lstm")]
    leading = (count,) if rows is None else (count, rows)
    made = tuple(torch.randn(*leading, size) for size in sizes)
    return made if cell == "lstm" else made[0]
