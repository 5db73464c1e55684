"""Recurrent layers by MXNet's own ``RNN`` operator, used only where its results are correct.

On the CPU it ignores or refuses sequence lengths, projection and clipping. When it runs there
without oneDNN, as in float64, it computes wrong gradients of the weights of a stack: of the lower
layers if the input needs no gradient, and of three or more tanh or ReLU layers. A call with one
plain layer is correct everywhere.
"""

from __future__ import annotations

from typing import Any, List, Sequence, Tuple

from fastrnn.cell import Cell


def layers(
    F: Any,
    cell: Cell,
    data: Any,
    states: Sequence[Any],
    weights: Sequence[Sequence[Sequence[Any]]],
) -> Tuple[Any, List[Any]]:
    """Run layers in any float type; otherwise as `fastrnn.mxnet.native.layers`."""
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
