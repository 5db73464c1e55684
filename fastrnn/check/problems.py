"""Inputs of layers, their float64 results, and how far results may be from these."""

from __future__ import annotations

from functools import lru_cache
from typing import Dict, List, NamedTuple, Optional

import numpy as np

from fastrnn.cell import Cell, Clip, Noise
from fastrnn.check import noise as noises
from fastrnn.check import reference as ref

Arrays = Dict[str, np.ndarray]
_TINY = 1e-30  # as good as zero, which nothing would be close to otherwise
_BOUND = 2.0  # of a clipped cell state
RATES = Noise(0.3, 0.4, 0.25)
_SEED = 0xFEDCBA9876543210


class Shape(NamedTuple):
    """A layer of one kind, apart from how it is computed."""

    cell: str
    steps: int
    rows: int
    hidden: int
    directions: int
    lengths: bool
    projected: bool = False
    clipped: bool = False
    noise: bool = False
    layer_norm: bool = False

    @property
    def inputs(self) -> int:
        """I: few, since the product with the inputs is cuBLAS's or oneDNN's."""
        return min(8, self.hidden)

    @property
    def projection(self) -> int:
        """P of a projected layer, else 0."""
        return (self.hidden + 1) // 2 if self.projected else 0

    @property
    def outputs(self) -> int:
        """P, which is H unless the layer is projected."""
        return self.projection or self.hidden

    @property
    def clip(self) -> Optional[Clip]:
        """The range of the cell state."""
        return Clip(-_BOUND, _BOUND) if self.clipped else None

    @property
    def rates(self) -> Optional[Noise]:
        """All rates of noise that the cell has."""
        if not self.noise:
            return None
        return RATES if self.cell == "lstm" else RATES._replace(zoneout_states=0.0)

    @property
    def weight_names(self) -> List[str]:
        """The names of a direction's weights, in order."""
        return Cell(
            self.cell, self.hidden, self.projection, layer_norm=self.layer_norm
        ).weight_names


class Problem(NamedTuple):
    """A layer's arrays, in float32 on the host, with values that all types have."""

    shape: Shape
    x: np.ndarray
    h_0: np.ndarray
    c_0: Optional[np.ndarray]
    weights: List[np.ndarray]
    lengths: Optional[np.ndarray]
    seed: Optional[int]  # of noise; None: its inference form
    d_output: np.ndarray
    d_h_n: np.ndarray
    d_c_n: Optional[np.ndarray]
    wanted: Arrays  # float64, by name


@lru_cache(maxsize=16)
def problem(shape: Shape, masks: bool = True) -> Problem:
    """Draw a layer and compute its results; the last ones are kept.

    Parameters
    ----------
    masks
        Whether a layer with noise draws masks, or is in its inference form.
    """
    rng = np.random.RandomState(7)
    cell = shape.cell == "lstm"
    state = (shape.directions, shape.rows, shape.outputs)
    cell_state = (*state[:2], shape.hidden)

    def draw(*size: int) -> np.ndarray:
        return _coarse(rng.standard_normal(size))

    x, h_0 = draw(shape.steps, shape.rows, shape.inputs), draw(*state)
    c_0 = draw(*cell_state) if cell else None
    stack = ref.random_stack(
        *(rng, shape.cell, shape.inputs, shape.hidden),
        directions=shape.directions,
        projection=shape.projection,
        layer_norm=shape.layer_norm,
    )
    if shape.cell == "rnn_relu":
        stack = [_away_from_zero(w) for w in stack]
    if shape.clipped:
        stack = [_away_from_the_bound(w) for w in stack]
        c_0 = _coarse(_inside_or_outside(np.asarray(c_0)))
    weights = [_coarse(array) for w in stack for array in w if array is not None]
    lengths = lengths_of(shape) if shape.lengths else None
    d_output = draw(shape.steps, shape.rows, shape.directions * shape.outputs)
    d_h_n, d_c_n = draw(*state), draw(*cell_state) if cell else None
    names = shape.weight_names
    seed = _SEED if shape.noise and masks else None
    result = ref.stack_forward(
        shape.cell,
        x,
        h_0,
        c_0,
        [
            ref.Weights(**dict(zip(names, weights[len(names) * d :])))
            for d in range(shape.directions)
        ],
        directions=shape.directions,
        lengths=lengths,
        clip=None if shape.clip is None else ref.Clip(*shape.clip),
        noise=_noise(shape, seed),
    )
    gradients = ref.stack_backward(result, d_output, d_h_n, d_c_n)
    flat = [w for d in gradients.weights for w in d if w is not None]
    found = {"output": result.output, "h_n": result.h, "c_n": result.c}
    found.update({"gradient of x": gradients.x, "gradient of h_0": gradients.h0})
    found["gradient of c_0"] = gradients.c0
    found.update({f"gradient of weights[{k}]": w for k, w in enumerate(flat)})
    wanted = {name: array for name, array in found.items() if array is not None}
    return Problem(shape, x, h_0, c_0, weights, lengths, seed, d_output, d_h_n, d_c_n, wanted)


def _noise(shape: Shape, seed: Optional[int]) -> Optional[List[noises.Noise]]:
    """Return what each direction draws."""
    if shape.rates is None:
        return None
    sizes = (shape.steps, shape.rows, shape.hidden, shape.outputs)
    return noises.drawn(shape.rates, seed, sizes, directions=shape.directions)


def lengths_of(shape: Shape) -> np.ndarray:
    """Lengths from 0 to T."""
    steps = shape.steps
    return np.resize([steps, 0, (steps + 1) // 2, 1, steps - 1], shape.rows).astype(np.int32)


def _coarse(array: np.ndarray) -> np.ndarray:
    """Round to what bfloat16 and float16 both have, so that one reference serves all types."""
    bits = np.where(np.abs(array) < 2.0**-14, 0.0, array).astype(np.float32).view(np.uint32)
    return ((bits + 0x8000) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def _away_from_zero(weights: ref.Weights) -> ref.Weights:
    """Keep pre-activations away from 0, where rounding decides which side of ReLU they are on."""
    bias = np.where(np.arange(weights.h2h_bias.size) % 2 == 0, 2.0, -2.0)
    return weights._replace(
        i2h_weight=weights.i2h_weight * 0.5, h2h_weight=weights.h2h_weight * 0.25, h2h_bias=bias
    )


def _away_from_the_bound(weights: ref.Weights) -> ref.Weights:
    """Keep cell states away from the bound, where rounding decides whether they are clipped.

    A quarter of the units passes the upper end in every step, a quarter the lower end, and the
    others stay inside.
    """
    side = _sides(weights.h2h_bias.size // 4)
    bias = np.concatenate([3.0 * np.abs(side), 4.0 * np.abs(side), 3.0 * side, 0.0 * side])
    return weights._replace(
        i2h_weight=weights.i2h_weight * 0.5,
        h2h_weight=weights.h2h_weight * 0.5,
        h2h_bias=weights.h2h_bias + bias,
    )


def _inside_or_outside(c_0: np.ndarray) -> np.ndarray:
    """Return initial cell states for the same units."""
    side = _sides(c_0.shape[-1])
    return np.where(side == 0.0, np.clip(c_0, -1.0, 1.0), side * (_BOUND + np.abs(c_0)))


def _sides(units: int) -> np.ndarray:
    """The end of the range that each unit passes, 1 or -1, or 0."""
    return np.resize([1.0, 0.0, -1.0, 0.0], units)


def difference(actual: Arrays, wanted: Arrays, math: str) -> Optional[str]:
    """Say which array is further from the reference than the rounding of `math` allows, or None."""
    tolerance = ref.TOLERANCE[math]
    for name, array in actual.items():
        expected = wanted[name]
        if array.shape != expected.shape:
            return f"{name} has shape {array.shape}, expected {expected.shape}"
        scale = max(float(np.abs(expected).max()), _TINY) if expected.size else _TINY
        share = np.abs(array - expected) / (scale + np.abs(expected))
        if not (share <= tolerance).all():  # NaN is not
            worst = float(np.nanmax(share)) if np.isfinite(share).any() else np.nan
            wrong = int((~(share <= tolerance)).sum())
            return (
                f"{name}: {wrong} of {array.size} numbers are wrong, by up to {worst:.1e} of the "
                f"largest, where {tolerance:.1e} is allowed"
            )
    return None
