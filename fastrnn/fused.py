"""One recurrent layer by MXNet's own ``RNN`` operator, used only for what that operator gets right.

On the CPU it ignores or refuses sequence lengths, projection and clipping, and a stack of three or
more tanh or ReLU layers that runs without oneDNN gets wrong weight gradients; one plain layer a
call is right everywhere.
"""

from __future__ import annotations

from typing import Any, List, Sequence, Tuple

from fastrnn.cell import Cell


def layer(
    F: Any, cell: Cell, data: Any, states: Sequence[Any], weights: Sequence[Sequence[Any]]
) -> Tuple[Any, List[Any]]:
    """Run one layer, in any float type; otherwise as `fastrnn.native.layers` runs each layer."""
    flat = [w.reshape(-1) for part in (slice(0, 2), slice(2, 4)) for d in weights for w in d[part]]
    outputs = F.RNN(
        data,
        F._internal._rnn_param_concat(*flat, dim=0),
        *states,
        state_size=cell.hidden_size,
        num_layers=1,
        bidirectional=len(weights) == 2,
        state_outputs=True,
        mode=cell.mode,
    )
    return outputs[0], [outputs[k + 1] for k in range(len(states))]
