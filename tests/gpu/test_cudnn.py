"""The kernels agree with PyTorch's layers on the same weights: cuDNN's, where there is a GPU."""

from __future__ import annotations

import numpy as np
import pytest
import reference as ref

from fastrnn import kernels

torch = pytest.importorskip("torch", reason="without PyTorch")
pytest.importorskip("fastrnn._C", reason="installed without the native library")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = ["float32", "float16", "bfloat16"] if DEVICE == "cuda" else ["float32"]
# T, N, I, H: odd, small, and sizes that cuDNN's own persistent kernels are for.
SIZES = [(1, 1, 1, 1), (5, 3, 7, 33), (20, 32, 50, 128), (35, 16, 64, 512)]


def peer(mode, inputs, hidden, directions, dtype):
    """Return PyTorch's layer, whose initial weights are random."""
    torch.manual_seed(5)
    kinds = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
    options = {} if mode in kinds else {"nonlinearity": mode[len("rnn_") :]}
    layer = kinds.get(mode, torch.nn.RNN)(
        inputs, hidden, bidirectional=directions == 2, device=DEVICE, **options
    )
    return layer.to(getattr(torch, dtype))


def draw(*shape, dtype, learns=True):
    return torch.randn(*shape, device=DEVICE).to(getattr(torch, dtype)).requires_grad_(learns)


def compare(name, actual, expected, dtype):
    actual, expected = (torch.as_tensor(a).detach().float().cpu() for a in (actual, expected))
    ref.assert_close(actual.numpy(), expected.numpy().astype(np.float64), name, dtype)


def from_kernels(array):
    """Return an array of the kernels' as a tensor."""
    return torch.from_dlpack(array)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ref.MODES)
def test_layer(mode, dtype, directions, sizes, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setenv("FASTRNN_TF32", "0")
    steps, rows, inputs, hidden = sizes
    layer = peer(mode, inputs, hidden, directions, dtype)
    x = draw(steps, rows, inputs, dtype=dtype)
    states = [draw(directions, rows, hidden, dtype=dtype) for _ in range(1 + (mode == "lstm"))]
    output, last = layer(x, tuple(states) if mode == "lstm" else states[0])
    last = list(last) if mode == "lstm" else [last]
    heads = [draw(*a.shape, dtype=dtype, learns=False) for a in (output, *last)]
    torch.autograd.backward([output, *last], heads)

    parameters = list(layer.parameters())
    weights = [p.detach() for p in parameters]
    result = kernels.forward(mode, x.detach(), weights, *(s.detach() for s in states), reserve=True)
    gradients = kernels.backward(result.reserve, *heads)
    for name, actual, expected in zip(("output", "h_n", "c_n"), result, (output, *last)):
        compare(name, from_kernels(actual), expected, dtype)
    wanted = [a.grad for a in (x, *states)]
    for name, actual, expected in zip(("x", "h_0", "c_0"), gradients, wanted):
        compare(f"gradient of {name}", from_kernels(actual), expected, dtype)
    for k, (actual, parameter) in enumerate(zip(gradients.weights, parameters)):
        compare(f"gradient of weights[{k}]", from_kernels(actual), parameter.grad, dtype)
