"""fastrnn's kernels beside cuDNN itself: all that one layer gives, with states and their gradients.

cuDNN is an oracle here, which computes in the same types; the benchmarks compare with float64, and
have no states.
"""

from __future__ import annotations

import numpy as np
import torch

from bench import data
from bench.peers.base import to_host
from bench.peers.cudnn import CudnnLayer
from fastrnn import kernels

RESULTS = ("output", "h_n", "c_n")
INPUTS = ("gradient of x", "gradient of h_0", "gradient of c_0")


def _weights(case):
    weights = data.draw(case).weights
    if case.cell != "rnn_relu":
        return weights
    # No pre-activation shall be so near 0 that rounding decides which side it is on.
    for k, (_, h2h, _, h2h_bias) in enumerate(zip(*[iter(weights)] * 4)):
        weights[4 * k + 1] = h2h * np.float32(0.125)
        h2h_bias[0::2], h2h_bias[1::2] = 16, -16
    return weights


def pairs(case):
    """Run both on the same random arguments.

    Parameters
    ----------
    case
        Of one layer, for training.

    Returns
    -------
    dict
        Of each result and gradient, by name: fastrnn's array and cuDNN's, of float32 on the host.
    """
    kind = getattr(torch, case.dtype)
    states = 1 + (case.cell == "lstm")
    state = (case.directions, case.batch, case.hidden)

    def draw(*shape):
        return torch.randn(*shape, device="cuda").to(kind)

    torch.manual_seed(11)
    x = draw(case.steps, case.batch, case.inputs)
    initial = [draw(*state) for _ in range(states)]
    heads = [draw(case.steps, case.batch, case.directions * case.hidden)]
    heads += [draw(*state) for _ in range(states)]
    weights, lengths = _weights(case), case.lengths()
    stream = torch.cuda.current_stream()
    result = kernels.forward(
        case.cell,
        x,
        [torch.from_numpy(w).to("cuda", kind) for w in weights],
        *initial,
        lengths=torch.from_numpy(lengths).cuda() if case.ragged else None,
        tf32=case.tf32,
        reserve=True,
        stream=stream,
    )
    gradients = kernels.backward(result.reserve, *heads, stream=stream)
    ours = [*result[:3], *gradients[:3], *gradients.weights]
    layer = CudnnLayer(torch, case, data.Data(weights, [], [], None), "cuda")
    try:
        theirs = [*layer.forward(x, *initial), *layer.backward(*heads)]
        theirs = [None if tensor is None else to_host(tensor) for tensor in theirs]
        theirs += layer.weight_gradients()
    finally:
        layer.close()
    # cuDNN promises nothing of the gradient of padding; fastrnn's is zero.
    theirs[3][np.arange(case.steps)[:, np.newaxis] >= lengths] = 0
    names = [*RESULTS, *INPUTS, *(f"gradient of weights[{k}]" for k in range(len(weights)))]
    found = zip(names, ours, theirs)
    return {
        name: (kernels.to_host(one).astype(np.float32), other)
        for name, one, other in found
        if other is not None
    }
