"""Recurrent layers by MXNet's own ``RNN`` operator, used only for what that operator gets right.

On the CPU it ignores or refuses sequence lengths, projection and clipping. Where it runs there
without oneDNN, as it does in float64, the gradients of a stack's weights are wrong: those of the
lower layers if the input needs none, and those of three or more tanh or ReLU layers. One plain
layer a call is right everywhere.
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
    """Run layers in any float type; otherwise as `fastrnn.native.layers` runs them."""
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
