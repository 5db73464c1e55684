"""The kernels agree with PyTorch's layers on the same weights: cuDNN's, where there is a GPU.

There they agree with cuDNN itself too, called through its C interface as the benchmarks do.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import reference as ref

from fastrnn import kernels

torch = pytest.importorskip("torch", reason="without PyTorch")
pytest.importorskip("fastrnn._C", reason="installed without the native library")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# TF32 is float32 whose products are rounded.
MATHS = ["float32", "tf32", "float16", "bfloat16"] if DEVICE == "cuda" else ["float32"]
# T, N, I, H: odd, small, and sizes that cuDNN's own persistent kernels are for; on a GPU also one
# that has more than one chunk of time.
SIZES = [(1, 1, 1, 1), (5, 3, 7, 33), (20, 32, 50, 128), (35, 16, 64, 512)]
LONG = (300, 128, 16, 256)


def peer(mode, inputs, hidden, directions, dtype):
    """Return PyTorch's layer, whose initial weights are random."""
    torch.manual_seed(5)
    kinds = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
    options = {} if mode in kinds else {"nonlinearity": mode[len("rnn_") :]}
    layer = kinds.get(mode, torch.nn.RNN)(
        inputs, hidden, bidirectional=directions == 2, device=DEVICE, **options
    )
    if mode == "rnn_relu":
        # No pre-activation shall be so near 0 that rounding decides which side it is on.
        with torch.no_grad():
            for name, values in layer.named_parameters():
                if name.startswith("weight_hh"):
                    values.mul_(0.125)
                elif name.startswith("bias_hh"):
                    values[0::2], values[1::2] = 16, -16
    return layer.to(getattr(torch, dtype))


def draw(*shape, dtype, learns=True):
    return torch.randn(*shape, device=DEVICE).to(getattr(torch, dtype)).requires_grad_(learns)


def compare(name, actual, expected, dtype):
    actual, expected = (torch.as_tensor(a).detach().float().cpu() for a in (actual, expected))
    ref.assert_close(actual.numpy(), expected.numpy().astype(np.float64), name, dtype)


def from_kernels(array):
    """Return an array of the kernels' as a tensor."""
    return torch.from_dlpack(array)


def run_peer(layer, x, states, lengths):
    """Return PyTorch's output and final states, h_n first."""
    initial = tuple(states) if len(states) == 2 else states[0]
    if lengths is None:
        output, last = layer(x, initial)
    else:
        rows = torch.nn.utils.rnn
        packed = rows.pack_padded_sequence(x, lengths, enforce_sorted=False)
        packed, last = layer(packed, initial)
        output, _ = rows.pad_packed_sequence(packed, total_length=x.shape[0])
    return [output, *(last if len(states) == 2 else [last])]


def agree(mode, math, directions, sizes, lengths=None):
    """Fail unless the kernels' results and gradients are those of PyTorch's layer."""
    dtype = "float32" if math == "tf32" else math
    steps, rows, inputs, hidden = sizes
    layer = peer(mode, inputs, hidden, directions, dtype)
    x = draw(steps, rows, inputs, dtype=dtype)
    states = [draw(directions, rows, hidden, dtype=dtype) for _ in range(1 + (mode == "lstm"))]
    results = run_peer(layer, x, states, lengths)
    heads = [draw(*a.shape, dtype=dtype, learns=False) for a in results]
    torch.autograd.backward(results, heads)

    parameters = list(layer.parameters())
    result = kernels.forward(
        mode,
        x.detach(),
        [p.detach() for p in parameters],
        *(s.detach() for s in states),
        lengths=None if lengths is None else lengths.to(torch.int32).to(DEVICE),
        tf32=math == "tf32",
        reserve=True,
    )
    gradients = kernels.backward(result.reserve, *heads)
    for name, actual, expected in zip(("output", "h_n", "c_n"), result, results):
        compare(name, from_kernels(actual), expected, math)
    wanted = [a.grad for a in (x, *states)]
    for name, actual, expected in zip(("x", "h_0", "c_0"), gradients, wanted):
        compare(f"gradient of {name}", from_kernels(actual), expected, math)
    for k, (actual, parameter) in enumerate(zip(gradients.weights, parameters)):
        compare(f"gradient of weights[{k}]", from_kernels(actual), parameter.grad, math)


@pytest.fixture(params=MATHS)
def math(request, monkeypatch):
    """How products are computed, by both."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", request.param == "tf32")
    return request.param


@pytest.mark.parametrize("sizes", [*SIZES, LONG] if DEVICE == "cuda" else SIZES)
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("mode", ref.MODES)
def test_layer(mode, math, directions, sizes):
    agree(mode, math, directions, sizes)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("mode", ref.MODES)
def test_lengths(mode, math, directions):
    agree(mode, math, directions, (20, 32, 50, 128), torch.arange(32) % 20 + 1)


# At the end: in front of an installed fastrnn there would be one that is not built.
sys.path.append(str(Path(__file__).resolve().parents[2]))


@pytest.mark.skipif(DEVICE == "cpu", reason="cuDNN needs a GPU")
@pytest.mark.parametrize("ragged", [False, True], ids=["even", "ragged"])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("mode", ref.MODES)
def test_cudnn_itself(mode, math, directions, sizes, ragged):
    from beside_cudnn import pairs

    from bench.cases import Case

    steps, rows, inputs, hidden = sizes
    case = Case(
        mode,
        layers=1,
        inputs=inputs,
        hidden=hidden,
        batch=rows,
        steps=steps,
        bidirectional=directions == 2,
        dtype="float32" if math == "tf32" else math,
        tf32=math == "tf32",
        ragged=ragged,
    )
    found = pairs(case)
    for name, (ours, theirs) in found.items():
        ref.assert_close(ours, theirs.astype(np.float64), name, math)
