"""Rows of different lengths on MXNet's ``RNN`` operator, which does not support lengths.

The output is masked, and a row's last h is read from it. So whatever the operator computes past a
row's length has no effect, except on the LSTM's last cell state, which is not in the output. One
more input feature, 1 past the row's length and 0 before, therefore closes the LSTM's input gate and
opens its forget gate: the cell state and its gradient then pass unchanged. The same feature sets a
ReLU layer to zero. The reverse direction is the forward one on rows that are reversed within their
own length.
"""

from __future__ import annotations

from typing import Any, List, Sequence, Tuple

from fastrnn.cell import Cell
from fastrnn.mxnet import nodes, rnn_operator

# The sign of each gate's input past a row's length. A GRU's h and a tanh stay bounded without it;
# a ReLU's h may grow to infinity, which would turn its zero gradient into NaN.
_REST = {"lstm": (-1, 1, 0, 0), "rnn_relu": (-1,)}
# Larger than any pre-activation of a model that has not diverged, and finite in float32.
_DRIVE = 1e12


def reverse(F: Any, data: Any, lengths: Any) -> Any:
    """Reverse each row's own steps of [T, N, ...]; leave later steps in place."""
    if lengths is None:
        return F.reverse(data, axis=0)
    return F.SequenceReverse(data, lengths, use_sequence_length=True)


def mask(F: Any, data: Any, lengths: Any) -> Any:
    """Set [T, N, ...] to zero past each row's length, even where it holds NaN."""
    return F.SequenceMask(data, lengths, use_sequence_length=True)


def steps(F: Any, data: Any, lengths: Any) -> Any:
    """Ones at each row's own steps, zeros past them: [T, N, 1]."""
    return mask(F, F.ones_like(F.slice_axis(data, axis=2, begin=0, end=1)), lengths)


def layer(
    F: Any,
    cell: Cell,
    data: Any,
    states: Sequence[Any],
    weights: Sequence[Sequence[Any]],
    lengths: Any,
    dtype: str,
) -> Tuple[Any, List[Any]]:
    """Run one layer.

    Parameters
    ----------
    data, states, weights
        As for one layer of `fastrnn.mxnet.native.layers`.
    lengths
        [N] of int32, between 0 and T.
    dtype
        Type of `data`.

    Returns
    -------
    output, states
        [T, N, D*H], zero past a row's length, and the states after each row's last step: the
        initial ones for a row without steps.
    """
    directions = len(weights)
    # Zeros in place of padding keep its NaN out of the gradients.
    data = mask(F, data, lengths)
    rest = _REST.get(cell.mode)
    if rest is not None:
        drives = [nodes.constant(F, k * _DRIVE, (cell.hidden_size, 1), dtype) for k in rest]
        drive = F.concat(*drives, dim=0)
        data = F.concat(data, 1 - steps(F, data, lengths), dim=2)
    each = [[state] for state in states]
    if directions > 1:  # split can infer N from its outputs; slice_axis cannot
        each = [F.split(state, num_outputs=directions, axis=0) for state in states]
    outputs, last = [], []
    for d, (i2h_weight, *others) in enumerate(weights):
        own = [state[d] for state in each]
        driven = i2h_weight
        if rest is not None:
            driven = F._internal._rnn_param_concat(i2h_weight, drive, dim=1)
        ordered = reverse(F, data, lengths) if d == 1 else data
        output, end = rnn_operator.layers(F, cell, ordered, own, [[[driven, *others]]], dtype)
        steps_of_h = F.concat(own[0], output, dim=0)  # the initial state first
        h = F.SequenceLast(steps_of_h, lengths + 1, use_sequence_length=True)
        end[0] = F.expand_dims(h, axis=0)
        output = mask(F, output, lengths)
        outputs.append(reverse(F, output, lengths) if d == 1 else output)
        last.append(end)
    if directions == 1:
        return outputs[0], last[0]
    return F.concat(*outputs, dim=2), [F.concat(*parts, dim=0) for parts in zip(*last)]
