"""Dropout of a recurrent layer: of its weights, of single numbers, and of whole sequences."""

from __future__ import annotations

from typing import Any, List, NamedTuple, Sequence, Tuple

import numpy as np

from fastrnn.mxnet import import_mxnet, nodes

mx: Any = import_mxnet()


class Rates(NamedTuple):
    """The share that a layer in training drops of each kind; it scales the rest by 1/(1 - rate).

    Every layer of a stack has `weights`, `inputs` and `outputs`.
    """

    between: float = 0.0  # numbers of a layer's output that the next layer reads
    weights: float = 0.0  # h2h weights, the same ones in all steps
    inputs: float = 0.0  # features of each row's input, the same ones in all steps
    outputs: float = 0.0  # units of each row's output, the same ones in all steps


def numbers(F: Any, data: Any, rate: float, axes: Tuple[int, ...] = ()) -> Any:
    """Drop numbers of an array; along `axes`, all or none."""
    if not rate:
        return data
    if np.float32(rate) < 1:  # MXNet's operator rounds it
        return F.Dropout(data, p=rate, axes=axes)
    # In training, MXNet's operator divides 0 by 0, and NaN is not equal to 1.
    return data * (F.Dropout(F.ones_like(data), p=1, axes=axes) == 1)


def sequences(F: Any, data: Any, rate: float) -> Any:
    """Drop features of each row of [T, N, C], with one mask for all steps."""
    return numbers(F, data, rate, axes=(0,))


def seed(F: Any) -> Any:
    """Return 64 random bits for the native operator, as zeros and twos; ones outside training.

    So one array says what masks are drawn, and whether they are: a graph does not know before.
    """
    return F.Dropout(nodes.constant(F, 1.0, (64,), "float32"), p=0.5)


def of_weights(
    F: Any, weights: Sequence[Sequence[Any]], rate: float, dtype: str
) -> List[List[Any]]:
    """Drop h2h weights, the second array of each direction (Merity et al., arXiv:1708.02182)."""

    def typed(array: Any) -> Any:
        # MXNet's operator, unlike others, refuses a variable whose type AMP has yet to infer.
        return nodes.with_shape(array, (_unknown(),) * 2, dtype) if F is mx.sym else array

    if not rate:
        return [list(direction) for direction in weights]
    return [[i2h, numbers(F, typed(h2h), rate), *others] for i2h, h2h, *others in weights]


def _unknown() -> int:
    return -1 if mx.util.is_np_shape() else 0
