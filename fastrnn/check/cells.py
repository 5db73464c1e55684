"""A step of the oracle's cells (reference.py), forward and backward, in float64 NumPy."""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from fastrnn.check.layer_norm import Norm, norm_backward, norm_forward

MODES = ("lstm", "gru", "rnn_tanh", "rnn_relu")
GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
NORM_GATES = {"lstm": (4,), "gru": (2, 1)}  # how many gates are layer-normalised together

Array = np.ndarray


class Weights(NamedTuple):
    """Parameters of one direction of one layer."""

    i2h_weight: Array  # [G*H, I]
    h2h_weight: Array  # [G*H, P]
    i2h_bias: Array  # [G*H]
    h2h_bias: Array  # [G*H]
    h2r_weight: Optional[Array] = None  # [P, H], the LSTM's projection
    # Of a layer-normalised cell, whose biases are the shifts of its products.
    i2h_gamma: Optional[Array] = None  # [G*H]
    h2h_gamma: Optional[Array] = None  # [G*H]
    c_gamma: Optional[Array] = None  # [H], LSTM only
    c_beta: Optional[Array] = None  # [H], LSTM only


class Clip(NamedTuple):
    """Range that the LSTM's cell state is clipped to after each step."""

    low: float
    high: float
    nan: bool = False  # whether NaN becomes `low` instead of going on


def sigmoid(z: Array) -> Array:
    """1 / (1 + exp(-z)), without an overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * z))


def clip_cell(c: Array, clip: Optional[Clip]) -> Tuple[Array, Array]:
    """Clip the cell state; also return where it stayed as it was."""
    if clip is None:
        return c, np.ones_like(c)
    inside = (c >= clip.low) & (c <= clip.high)
    clipped = np.where(c < clip.low, clip.low, np.where(c > clip.high, clip.high, c))
    if clip.nan:
        clipped = np.where(np.isnan(c), clip.low, clipped)
    return clipped, inside.astype(np.float64)


def cell_forward(
    mode: str, x: Array, h: Array, c: Optional[Array], w: Weights, *, clip: Optional[Clip] = None
) -> Tuple[Array, Optional[Array], Any]:
    """One step for all rows: x [N, I], h [N, P], c [N, H] -> h, c and what backward needs."""
    i2h, h2h = x @ w.i2h_weight.T, h @ w.h2h_weight.T
    norms: List[Norm] = []
    if w.i2h_gamma is None:
        i2h, h2h = i2h + w.i2h_bias, h2h + w.h2h_bias
    else:
        widths = tuple(gates * (w.i2h_bias.size // GATES[mode]) for gates in NORM_GATES[mode])
        i2h, of_input = norm_forward(i2h, w.i2h_gamma, w.i2h_bias, widths)
        h2h, of_hidden = norm_forward(h2h, w.h2h_gamma, w.h2h_bias, widths)
        norms = [of_input, of_hidden]
    if mode == "lstm":
        assert c is not None
        zi, zf, zg, zo = np.split(i2h + h2h, 4, axis=1)
        i, f, g, o = sigmoid(zi), sigmoid(zf), np.tanh(zg), sigmoid(zo)
        new_c, inside = clip_cell(f * c + i * g, clip)
        seen_c = new_c
        if norms:
            seen_c, of_c = norm_forward(new_c, w.c_gamma, w.c_beta, (new_c.shape[1],))
            norms.append(of_c)
        tanh_c = np.tanh(seen_c)
        y = o * tanh_c
        new_h = y if w.h2r_weight is None else y @ w.h2r_weight.T
        return new_h, new_c, (x, h, c, i, f, g, o, tanh_c, inside, y, norms)
    if mode == "gru":
        xr, xz, xn = np.split(i2h, 3, axis=1)
        hr, hz, hn = np.split(h2h, 3, axis=1)
        r, z = sigmoid(xr + hr), sigmoid(xz + hz)
        n = np.tanh(xn + r * hn)
        return (1 - z) * n + z * h, None, (x, h, r, z, n, hn, norms)
    new_h = np.tanh(i2h + h2h) if mode == "rnn_tanh" else np.maximum(i2h + h2h, 0.0)
    return new_h, None, (x, h, new_h)


def cell_backward(
    mode: str, saved: Any, dh: Array, dc: Optional[Array], w: Weights
) -> Tuple[Array, Array, Optional[Array], Weights]:
    """Gradients of one step: to x, to the h and c it started from, and to the weights."""
    dw_projection = None
    dc_before = None
    norms: List[Norm] = []
    dw_norms: Dict[str, Array] = {}
    if mode == "lstm":
        x, h, c, i, f, g, o, tanh_c, inside, y, norms = saved
        dy = dh
        if w.h2r_weight is not None:
            dy = dh @ w.h2r_weight
            dw_projection = dh.T @ y
        d_seen = dy * o * (1 - tanh_c**2)
        if norms:
            d_seen, dw_norms["c_gamma"], dw_norms["c_beta"] = norm_backward(norms[2], d_seen)
        dc_after = (dc + d_seen) * inside
        d_i2h = np.concatenate(
            [
                dc_after * g * i * (1 - i),
                dc_after * c * f * (1 - f),
                dc_after * i * (1 - g**2),
                dy * tanh_c * o * (1 - o),
            ],
            axis=1,
        )
        d_h2h = d_i2h
        dh_before = np.zeros_like(h)
        dc_before = dc_after * f
    elif mode == "gru":
        x, h, r, z, n, hn, norms = saved
        dn = dh * (1 - z) * (1 - n**2)
        dr = dn * hn * r * (1 - r)
        dz = dh * (h - n) * z * (1 - z)
        d_i2h = np.concatenate([dr, dz, dn], axis=1)
        d_h2h = np.concatenate([dr, dz, dn * r], axis=1)
        dh_before = dh * z
    else:
        x, h, new_h = saved
        d_i2h = dh * (1 - new_h**2 if mode == "rnn_tanh" else new_h > 0)
        d_h2h = d_i2h
        dh_before = np.zeros_like(h)
    d_i2h_bias, d_h2h_bias = d_i2h.sum(0), d_h2h.sum(0)
    if norms:
        d_i2h, dw_norms["i2h_gamma"], _ = norm_backward(norms[0], d_i2h)
        d_h2h, dw_norms["h2h_gamma"], _ = norm_backward(norms[1], d_h2h)
    dx = d_i2h @ w.i2h_weight
    dh_before = dh_before + d_h2h @ w.h2h_weight
    dw = Weights(d_i2h.T @ x, d_h2h.T @ h, d_i2h_bias, d_h2h_bias, dw_projection)
    dw = dw._replace(**dw_norms)
    return dx, dh_before, dc_before, dw
