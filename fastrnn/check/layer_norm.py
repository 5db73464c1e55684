"""Layer normalisation in float64 NumPy, for the oracle (reference.py)."""

from __future__ import annotations

from typing import Any, List, NamedTuple, Tuple

import numpy as np

EPSILON = float(np.float32(1e-5))  # added to variances; MXNet's operator takes it in float32


class Norm(NamedTuple):
    """What the backward pass of a layer normalisation needs."""

    unit: Any  # with mean 0 and variance 1
    scale: Any  # the reciprocal standard deviations
    gamma: Any
    widths: Tuple[int, ...]  # of the parts that are normalised separately


def norm_forward(values: Any, gamma: Any, beta: Any, widths: Tuple[int, ...]) -> Tuple[Any, Norm]:
    """Layer normalisation of each row's parts (Ba et al., arXiv:1607.06450)."""
    unit, scale = np.empty_like(values), np.empty_like(values)
    for part in _parts(widths):
        own = values[:, part]
        scale[:, part] = 1.0 / np.sqrt(own.var(axis=1, keepdims=True) + EPSILON)
        unit[:, part] = (own - own.mean(axis=1, keepdims=True)) * scale[:, part]
    return unit * gamma + beta, Norm(unit, scale, gamma, widths)


def norm_backward(norm: Norm, d: Any) -> Tuple[Any, Any, Any]:
    """Return the gradients of the values, of gamma and of beta."""
    d_unit, d_values = d * norm.gamma, np.empty_like(d)
    for part in _parts(norm.widths):
        own, unit = d_unit[:, part], norm.unit[:, part]
        along = (own * unit).mean(axis=1, keepdims=True)
        centred = own - own.mean(axis=1, keepdims=True) - unit * along
        d_values[:, part] = centred * norm.scale[:, part]
    return d_values, (d * norm.unit).sum(0), d.sum(0)


def _parts(widths: Tuple[int, ...]) -> List[slice]:
    ends = np.cumsum(widths)
    return [slice(end - width, end) for end, width in zip(ends, widths)]
