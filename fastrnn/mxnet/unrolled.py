"""Recurrent layers made of Gluon's plain operators, one step at a time.

For layers that neither the native operator nor MXNet's ``RNN`` computes correctly. The loop over
the steps is ``F.contrib.foreach``, so one graph serves any number of steps, on any device. The same
code runs eagerly (``F`` is `mxnet.nd`) and while a graph is traced (``F`` is `mxnet.sym`).
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Sequence, Tuple

from fastrnn.cell import GATES, Cell
from fastrnn.mxnet import dropout
from fastrnn.mxnet.lengths import mask, reverse, steps

_EPSILON = 1e-5  # what a layer normalisation adds to variances


def layer(
    F: Any,
    cell: Cell,
    data: Any,
    states: Sequence[Any],
    weights: Sequence[Sequence[Any]],
    lengths: Any = None,
) -> Tuple[Any, List[Any]]:
    """Run one layer.

    Parameters
    ----------
    F
        `mxnet.nd` or `mxnet.sym`.
    data
        [T, N, I].
    states
        [D, N, P], and for the LSTM [D, N, H].
    weights
        For each direction: i2h_weight [G*H, I], h2h_weight [G*H, P], i2h_bias [G*H],
        h2h_bias [G*H] and the rest of ``cell.weight_names``.
    lengths
        Steps of each row, [N] of int32, between 0 and T; None: all rows have T.

    Returns
    -------
    output, states
        [T, N, D*P], zero past a row's length, and the states after each row's last step.
    """
    directions = len(weights)
    split = [F.split(state, num_outputs=directions, axis=0, squeeze_axis=True) for state in states]
    if directions == 1:
        split = [[state] for state in split]
    own = None
    if lengths is not None:
        data = mask(F, data, lengths)
        own = F.reshape(steps(F, data, lengths), shape=(0, 0))
    outputs, last = [], []
    for d in range(directions):
        start = [state[d] for state in split]
        ordered = reverse(F, data, lengths) if d == 1 else data
        output, end = _direction(F, cell, ordered, start, weights[d], own)
        if lengths is not None:
            output = mask(F, output, lengths)
        outputs.append(reverse(F, output, lengths) if d == 1 else output)
        last.append(end)
    new_states = [F.stack(*parts, axis=0) for parts in zip(*last)]
    return outputs[0] if directions == 1 else F.concat(*outputs, dim=2), new_states


def _direction(
    F: Any, cell: Cell, data: Any, states: List[Any], weights: Sequence[Any], own: Any
) -> Tuple[Any, List[Any]]:
    """One direction from the first step to the last; a row keeps its state where `own` is 0."""
    named = dict(zip(cell.weight_names, weights))
    i2h_weight, h2h_weight, i2h_bias, h2h_bias = weights[:4]
    rows = GATES[cell.mode] * cell.hidden_size
    # With oneDNN, FullyConnected computes no gradient of its bias if its weight needs none.
    i2h = F.FullyConnected(data, i2h_weight, num_hidden=rows, no_bias=True, flatten=False)
    gru = cell.mode == "gru"  # its reset gate multiplies the h2h bias
    if cell.layer_norm:
        i2h = _normalized(F, cell, i2h, named["i2h_gamma"], i2h_bias)
    else:
        i2h = F.broadcast_add(i2h, F.reshape(i2h_bias, shape=(1, 1, -1)))
    if not gru and not cell.layer_norm:
        # Not in the step, where MXNet would no longer infer the shape of h.
        i2h = F.broadcast_add(i2h, F.reshape(h2h_bias, shape=(1, 1, -1)))

    read, shares = _masks(F, cell, data)

    def step(inputs: List[Any], before: List[Any]) -> Tuple[Any, List[Any]]:
        seen = before if read is None else [before[0] * read, *before[1:]]
        if cell.layer_norm and not gru:
            # MXNet infers no shape of h through a LayerNorm: it has that of c.
            seen = [F._internal._identity_with_attr_like_rhs(*seen), seen[1]]
        h2h = F.FullyConnected(seen[0], h2h_weight, num_hidden=rows, no_bias=True)
        if cell.layer_norm:
            h2h = _normalized(F, cell, h2h, named["h2h_gamma"], h2h_bias)
        elif gru:
            h2h = F.broadcast_add(h2h, F.reshape(h2h_bias, shape=(1, -1)))
        after = _step(F, cell, inputs[0], h2h, seen, named)
        for k, share in zip(shares, inputs[1:]):
            after[k] = share * after[k] + (1 - share) * before[k]
        if own is not None:
            after = [F.where(inputs[-1], new, old) for new, old in zip(after, before)]
        return after[0], after

    sequences = [i2h, *shares.values(), *([] if own is None else [own])]
    return F.contrib.foreach(step, sequences, states)


def _masks(F: Any, cell: Cell, data: Any) -> Tuple[Any, Dict[int, Any]]:
    """Draw what h is multiplied by where a step reads it, and the shares of the new states.

    The first is [N, P] or None; the others are [T, N, P] of h and [T, N, H] of c, by the state's
    number. All are drawn before the loop, which reads them as it does its input.
    """
    noise, read = cell.noise, None
    shares: Dict[int, Any] = {}
    if not any(noise):
        return read, shares
    one = F.ones_like(F.slice_axis(data, axis=2, begin=0, end=1))  # [T, N, 1]
    if noise.drop_states:
        first = F.slice_axis(one, axis=0, begin=0, end=1)
        first = F.broadcast_axis(first, axis=2, size=cell.outputs)
        read = F.reshape(dropout.numbers(F, first, noise.drop_states), shape=(-3, 0))
    rates = (noise.zoneout_outputs, noise.zoneout_states)
    for k, (rate, size) in enumerate(zip(rates, (cell.outputs, cell.hidden_size))):
        if rate:
            drawn = dropout.numbers(F, F.broadcast_axis(one, axis=2, size=size), rate)
            # In training 0 or 1/(1 - rate), outside of it 1.
            shares[k] = (drawn > 0) * (1 - rate * (drawn == 1))
    return read, shares


def _normalized(F: Any, cell: Cell, gates: Any, gamma: Any, beta: Any) -> Any:
    """Normalise the gates in the last dimension: an LSTM's together, a GRU's last one by itself."""
    if cell.mode == "lstm":
        return F.LayerNorm(gates, gamma, beta, axis=-1, eps=_EPSILON)
    parts = [
        F.LayerNorm(
            F.slice_axis(gates, axis=-1, begin=begin * cell.hidden_size, end=end),
            F.slice_axis(gamma, axis=0, begin=begin * cell.hidden_size, end=end),
            F.slice_axis(beta, axis=0, begin=begin * cell.hidden_size, end=end),
            axis=-1,
            eps=_EPSILON,
        )
        for begin, end in ((0, 2 * cell.hidden_size), (2, 3 * cell.hidden_size))
    ]
    return F.concat(*parts, dim=-1)


def _step(
    F: Any, cell: Cell, i2h: Any, h2h: Any, before: List[Any], named: Mapping[str, Any]
) -> List[Any]:
    """States [N, P] and, for the LSTM, [N, H] after one step."""
    if cell.mode == "lstm":
        gate_i, gate_f, gate_g, gate_o = F.split(i2h + h2h, num_outputs=4, axis=1)
        c = F.sigmoid(gate_f) * before[1] + F.sigmoid(gate_i) * F.tanh(gate_g)
        if cell.clip_min is not None:
            if cell.clip_nan:
                c = F.where(c == c, c, F.ones_like(c) * cell.clip_min)
            # F.clip would round the range to float32.
            c = F.maximum(F.minimum(c, cell.clip_max), cell.clip_min)
        seen = c
        if cell.layer_norm:
            seen = F.LayerNorm(c, named["c_gamma"], named["c_beta"], axis=-1, eps=_EPSILON)
        h = F.sigmoid(gate_o) * F.tanh(seen)
        return [F.dot(h, named["h2r_weight"], transpose_b=True) if cell.projected else h, c]
    if cell.mode == "gru":
        i2h_r, i2h_z, i2h_n = F.split(i2h, num_outputs=3, axis=1)
        h2h_r, h2h_z, h2h_n = F.split(h2h, num_outputs=3, axis=1)
        update = F.sigmoid(i2h_z + h2h_z)
        new = F.tanh(i2h_n + F.sigmoid(i2h_r + h2h_r) * h2h_n)
        return [(1 - update) * new + update * before[0]]
    return [F.Activation(i2h + h2h, act_type="tanh" if cell.mode == "rnn_tanh" else "relu")]
