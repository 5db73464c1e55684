"""The oracle: recurrent layers forward and backward in float64 NumPy, step by step.

Nothing here is fast or clever, and no framework is involved. Shapes: T steps, N rows, I inputs,
H hidden units, P outputs (H, or the projection's size), G gates, D directions, L layers.

``fastrnn check``, the tests and the benchmarks compare with it. One direction of one layer::

    result = forward(mode, x, h0, c0, weights)       # result.output, result.h, result.c
    grads = backward(result, d_output, d_h, d_c)     # grads.x, grads.h0, grads.c0, grads.weights

A whole stack, ``weights`` being a flat list ordered (layer, direction)::

    result = stack_forward(mode, x, h0, c0, weights, directions=2)
    grads = stack_backward(result, d_output, d_h, d_c)

Gate order: LSTM i, f, g, o; GRU r, z, n with the reset gate applied after the product.
"""

from __future__ import annotations

import functools
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from fastrnn.check.layer_norm import Norm, norm_backward, norm_forward

MODES = ("lstm", "gru", "rnn_tanh", "rnn_relu")
GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
NORM_GATES = {"lstm": (4,), "gru": (2, 1)}  # how many gates are layer-normalised together

# The one tolerance: how far a result may be from the reference, as a fraction of the
# largest magnitude in the array it belongs to. A short mantissa is rounded to in every step, and
# the errors of the steps add up to a few units in its last place. "tf32" is float32 with products
# in TF32.
MANTISSA_BITS = {"float16": 10, "bfloat16": 7, "tf32": 10}
TOLERANCE = {"float32": 1e-5, "float64": 1e-11}
TOLERANCE.update({dtype: 5 * 2.0**-bits for dtype, bits in MANTISSA_BITS.items()})

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


class Noise(NamedTuple):
    """Zoneout (Krueger et al., arXiv:1606.01305) and dropout of the state, of one direction.

    A step reads ``read * h``, and keeps these shares of the states before it. Masks hold zeros and
    ones for shares; in the inference form, every share is zoneout's rate.
    """

    h: Any = 0.0  # [T, N, P]
    c: Any = 0.0  # [T, N, H]
    read: Any = 1.0  # [N, P]

    def at(self, time: int) -> Tuple[Any, Any]:
        """Return the shares of h and c that the step at a time keeps."""
        h, c = (s if np.ndim(s) == 0 else s[time] for s in (self.h, self.c))
        return h, c


class Result(NamedTuple):
    """Outcome of `forward`, with what `backward` needs."""

    output: Array  # [T, N, P], zero past a row's length
    h: Array  # [N, P], at each row's last step
    c: Optional[Array]  # [N, H], LSTM only
    tape: Any


class Gradients(NamedTuple):
    """Gradients of one direction (`weights` is one `Weights`) or of a stack (a list of them)."""

    x: Array
    h0: Array
    c0: Optional[Array]
    weights: Any


def assert_close(actual: Any, expected: Array, name: str = "", dtype: str = "float32") -> None:
    """Fail unless `actual` is the reference `expected`, up to the rounding of `dtype`."""
    actual = np.asarray(actual.asnumpy() if hasattr(actual, "asnumpy") else actual, np.float64)
    assert actual.shape == expected.shape, f"{name}: shape {actual.shape}, not {expected.shape}"
    scale = np.abs(expected).max() if expected.size else 0.0
    tolerance = TOLERANCE[dtype]
    # 1e-30 is as good as zero, which nothing would be close to otherwise.
    atol = tolerance * scale + 1e-30
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=atol, err_msg=name)


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


def forward(
    mode: str,
    x: Array,
    h0: Array,
    c0: Optional[Array],
    weights: Weights,
    *,
    lengths: Optional[Array] = None,
    clip: Optional[Clip] = None,
    reverse: bool = False,
    noise: Optional[Noise] = None,
) -> Result:
    """One direction of one layer.

    Parameters
    ----------
    mode
        One of `MODES`.
    x, h0, c0
        [T, N, I], [N, P], [N, H] (None unless LSTM).
    lengths
        [N] integers: a row takes part in steps 0 to length - 1 only. All steps by default.
    reverse
        From the last step to the first; `h` and `c` are then those after step 0.
    """
    x, h = np.asarray(x, np.float64), np.asarray(h0, np.float64)
    c: Any = None if c0 is None else np.asarray(c0, np.float64)
    own: List[Any] = [None if a is None else np.asarray(a, np.float64) for a in weights]
    w = Weights(*own)
    steps, rows = x.shape[:2]
    lengths = np.full(rows, steps) if lengths is None else np.asarray(lengths)
    output = np.zeros((steps, rows, h.shape[1]))
    noise = noise or Noise()
    saved = []
    for t in reversed(range(steps)) if reverse else range(steps):
        active = (t < lengths)[:, np.newaxis]
        kept_h, kept_c = noise.at(t)
        new_h, new_c, step = cell_forward(mode, x[t], noise.read * h, c, w, clip=clip)
        new_h = kept_h * h + (1 - kept_h) * new_h
        output[t] = np.where(active, new_h, 0.0)
        h = np.where(active, new_h, h)
        if c is not None:
            c = np.where(active, kept_c * c + (1 - kept_c) * np.asarray(new_c), c)
        saved.append((t, active, step))
    return Result(output, h, c, (mode, x.shape, w, saved, noise))


def backward(result: Result, d_output: Array, d_h: Array, d_c: Optional[Array] = None) -> Gradients:
    """Gradients of one direction, from those to its output, last h and last c."""
    mode, x_shape, w, saved, noise = result.tape
    d_x = np.zeros(x_shape)
    dh = np.asarray(d_h, np.float64)
    dc: Any = None if d_c is None else np.asarray(d_c, np.float64)
    dw: List[Any] = [None if a is None else np.zeros_like(a) for a in w]
    for t, active, step in reversed(saved):
        dh_step = np.where(active, dh + d_output[t], 0.0)
        dc_step = None if dc is None else np.where(active, dc, 0.0)
        kept_h, kept_c = noise.at(t)
        dc_new = None if dc_step is None else (1 - kept_c) * dc_step
        dx, dh_before, dc_before, dw_step = cell_backward(
            mode, step, (1 - kept_h) * dh_step, dc_new, w
        )
        d_x[t] = dx
        dh = np.where(active, noise.read * dh_before + kept_h * dh_step, dh)
        if dc_step is not None:
            dc = np.where(active, np.asarray(dc_before) + kept_c * dc_step, dc)
        dw = [None if a is None else a + b for a, b in zip(dw, dw_step)]
    return Gradients(d_x, dh, dc, Weights(*dw))


def stack_forward(
    mode: str,
    x: Array,
    h0: Array,
    c0: Optional[Array],
    weights: Sequence[Weights],
    *,
    directions: int = 1,
    lengths: Optional[Array] = None,
    clip: Optional[Clip] = None,
    masks: Optional[Sequence[Array]] = None,
    noise: Optional[Sequence[Noise]] = None,
) -> Result:
    """All layers, both directions of each.

    Parameters
    ----------
    x, h0, c0
        [T, N, I], [L*D, N, P], [L*D, N, H] (None unless LSTM), ordered (layer, direction).
    weights
        L*D of them, in the same order.
    masks
        L-1 of [T, N, D*P]: what a layer's output is multiplied by before the next one takes it.
    noise
        L*D of them, in the weights' order.

    Returns
    -------
    Result
        output [T, N, D*P], h [L*D, N, P], c [L*D, N, H].
    """
    results: List[Result] = []
    for k, w in enumerate(weights):
        if k % directions == 0 and k > 0:
            x = np.concatenate([r.output for r in results[k - directions :]], axis=2)
            x = x if masks is None else x * masks[k // directions - 1]
        c = None if c0 is None else c0[k]
        reverse = k % directions == 1
        own = None if noise is None else noise[k]
        run = functools.partial(forward, lengths=lengths, clip=clip, reverse=reverse, noise=own)
        results.append(run(mode, x, h0[k], c, w))
    return Result(
        np.concatenate([r.output for r in results[-directions:]], axis=2),
        np.stack([r.h for r in results]),
        None if c0 is None else np.stack([np.asarray(r.c) for r in results]),
        (directions, results, masks),
    )


def stack_backward(
    result: Result, d_output: Array, d_h: Array, d_c: Optional[Array] = None
) -> Gradients:
    """Gradients of a stack, from those to its output [T, N, D*P] and last states [L*D, N, ...]."""
    directions, results, masks = result.tape
    grads: List[Gradients] = []
    for last in range(len(results), 0, -directions):
        layer = range(last - directions, last)
        parts = np.split(np.asarray(d_output, np.float64), directions, axis=2)
        layer_grads = [
            backward(results[k], part, d_h[k], None if d_c is None else d_c[k])
            for k, part in zip(layer, parts)
        ]
        d_output = sum((g.x for g in layer_grads[1:]), layer_grads[0].x)
        if masks is not None and last > directions:
            d_output = d_output * masks[last // directions - 2]
        grads = layer_grads + grads
    return Gradients(
        d_output,
        np.stack([g.h0 for g in grads]),
        None if d_c is None else np.stack([np.asarray(g.c0) for g in grads]),
        [g.weights for g in grads],
    )


def random_weights(
    rng: np.random.RandomState,
    mode: str,
    inputs: int,
    hidden: int,
    projection: int = 0,
    layer_norm: bool = False,
) -> Weights:
    """Weights of one direction, at the scale that Gluon's default initializers give.

    The gammas of a layer normalisation are below its initial ones: gradients grow with them from
    step to step, and with the gradients the share of each rounding.
    """
    rows, outputs = GATES[mode] * hidden, projection or hidden
    shapes = [(rows, inputs), (rows, outputs), (rows,), (rows,)]
    if projection:
        shapes.append((projection, hidden))
    scale = 1.0 / np.sqrt(hidden)
    found = Weights(*(rng.uniform(-scale, scale, shape) for shape in shapes))
    if not layer_norm:
        return found
    gammas = {name: rng.uniform(0.2, 0.8, rows) for name in ("i2h_gamma", "h2h_gamma")}
    if mode == "lstm":
        gammas["c_gamma"] = rng.uniform(0.2, 0.8, hidden)
        gammas["c_beta"] = rng.uniform(-0.5, 0.5, hidden)
    return found._replace(**gammas)


def random_stack(
    rng: np.random.RandomState,
    mode: str,
    inputs: int,
    hidden: int,
    *,
    layers: int = 1,
    directions: int = 1,
    projection: int = 0,
    layer_norm: bool = False,
) -> List[Weights]:
    """Weights of a stack, ordered (layer, direction)."""
    outputs = (projection or hidden) * directions
    return [
        random_weights(
            rng, mode, inputs if k < directions else outputs, hidden, projection, layer_norm
        )
        for k in range(layers * directions)
    ]
