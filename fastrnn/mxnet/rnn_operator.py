"""Recurrent layers by MXNet's own ``RNN`` operator, used only where its results are correct.

On the CPU it ignores or refuses sequence lengths, projection and clipping. When it runs there
without oneDNN, as in float64, it computes wrong gradients of the weights of a stack: of the lower
layers if the input needs no gradient, and of three or more tanh or ReLU layers. If no weight needs
a gradient, those of the input and of h are wrong there, except for the LSTM. A call with one plain
layer whose weights need gradients is correct everywhere.
"""

from __future__ import annotations

import os
from typing import Any, List, Sequence, Tuple

from fastrnn.cell import GATES, Cell
from fastrnn.mxnet import import_mxnet

mx: Any = import_mxnet()

# Whether MXNet runs the operator on oneDNN in float32 on a CPU.
_ONEDNN = (
    mx.runtime.Features().is_enabled("MKLDNN")
    and os.environ.get("MXNET_USE_MKLDNN_RNN", "1") != "0"
)


def without_onednn(dtype: str) -> bool:
    """Whether the operator runs without oneDNN on a CPU."""
    return dtype == "float64" or not _ONEDNN


def layers(
    F: Any,
    cell: Cell,
    data: Any,
    states: Sequence[Any],
    weights: Sequence[Sequence[Sequence[Any]]],
    dtype: str,
) -> Tuple[Any, List[Any]]:
    """Run layers in any float type; otherwise as `fastrnn.mxnet.native.layers`."""
    if F is mx.sym and cell.mode != "lstm" and without_onednn(dtype):
        weights = _needing_gradients(F, cell, [data, states[0]], weights)
    directions = [direction for layer in weights for direction in layer]
    # The matrices of all layers and directions come first, then their biases.
    flat = [
        w.reshape(-1) for part in (slice(0, 2), slice(2, 4)) for d in directions for w in d[part]
    ]
    outputs = F.RNN(
        data,
        F._internal._rnn_param_concat(*flat, dim=0),
        *states,
        state_size=cell.hidden_size,
        num_layers=len(weights),
        bidirectional=len(weights[0]) == 2,
        state_outputs=True,
        mode=cell.mode,
    )
    return outputs[0], [outputs[k + 1] for k in range(len(states))]


def _needing_gradients(
    F: Any, cell: Cell, arrays: Sequence[Any], weights: Sequence[Sequence[Sequence[Any]]]
) -> List[List[List[Any]]]:
    """Return the same weights, whose gradients are computed wherever those of `arrays` are.

    A bias goes through an array that also holds a number made of the others.
    """
    (first, *directions), *above = ([list(direction) for direction in layer] for layer in weights)
    *others, bias = first
    extra = F.reshape(F.add_n(*(F.sum(array) for array in arrays)), shape=(1,))
    size = GATES[cell.mode] * cell.hidden_size
    bias = F.slice_axis(F.concat(bias, extra, dim=0), axis=0, begin=0, end=size)
    return [[[*others, bias], *directions], *above]
