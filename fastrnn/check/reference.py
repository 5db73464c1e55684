"""The oracle: recurrent layers forward and backward in float64 NumPy, step by step.

Nothing here is fast or clever, and no framework is involved. Shapes: T steps, N rows, I inputs,
H hidden units, P outputs (H, or the projection's size), G gates, D directions, L layers.

A step is in `cells`. ``fastrnn check``, the tests and the benchmarks compare with it. One direction
of one layer::

    result = forward(mode, x, h0, c0, weights)       # result.output, result.h, result.c
    grads = backward(result, d_output, d_h, d_c)     # grads.x, grads.h0, grads.c0, grads.weights

A whole stack, ``weights`` being a flat list ordered (layer, direction)::

    result = stack_forward(mode, x, h0, c0, weights, directions=2)
    grads = stack_backward(result, d_output, d_h, d_c)

Gate order: LSTM i, f, g, o; GRU r, z, n with the reset gate applied after the product.
"""

from __future__ import annotations

import functools
from typing import Any, List, NamedTuple, Optional, Sequence

import numpy as np

from fastrnn.check.cells import GATES, Array, Clip, Weights, cell_backward, cell_forward
from fastrnn.check.noise import Noise

# The one tolerance: how far a result may be from the reference, as a fraction of the
# largest magnitude in the array it belongs to. A short mantissa is rounded to in every step, and
# the errors of the steps add up to a few units in its last place. "tf32" is float32 with products
# in TF32.
MANTISSA_BITS = {"float16": 10, "bfloat16": 7, "tf32": 10}
TOLERANCE = {"float32": 1e-5, "float64": 1e-11}
TOLERANCE.update({dtype: 5 * 2.0**-bits for dtype, bits in MANTISSA_BITS.items()})


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
        One of `cells.MODES`.
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
