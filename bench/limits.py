"""What a layer cannot be faster than, on a machine of given peaks. Pure functions.

Three bounds, the largest of which counts: the products' FLOPs over the peak of the arithmetic that
is used; the bytes that have to be moved at least over the bandwidth; and the chain of steps, each
of which needs what all units of the one before have computed, times one exchange of it between
the multiprocessors. The cells' own arithmetic is left out, as it is small beside the products.
"""

from __future__ import annotations

from typing import NamedTuple, Optional

from bench.cases import GATES, Case

ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


class Peaks(NamedTuple):
    """What the machine reached in this run."""

    flops: float  # per second, in products of the case's arithmetic
    bandwidth: float  # bytes per second, read and written ones counted alike
    exchange: Optional[float]  # seconds from one step to the next; None where it was not measured


class Limit(NamedTuple):
    """The least time of a call, and what sets it."""

    seconds: float
    bound: str  # math, memory or exchange


def row_steps(case: Case) -> int:
    """Steps of all rows: N*T, or the sum of the lengths."""
    return int(case.lengths().sum())


def weight_count(case: Case) -> int:
    """Values of all matrices; biases are nothing beside them."""
    gate_rows, total = GATES[case.cell] * case.hidden, 0
    for layer in range(case.layers):
        inputs = case.inputs if layer == 0 else case.directions * case.hidden
        total += case.directions * gate_rows * (inputs + case.hidden)
    return total


def flops(case: Case) -> float:
    """Of the products: 2 for each weight, row and step; backward does twice as many again."""
    return 2.0 * weight_count(case) * row_steps(case) * (3 if case.train else 1)


def least_bytes(case: Case) -> float:
    """Bytes that any implementation moves.

    Inference reads weights and input and writes the output. Training also reads all of these once
    more, with the gradient of the output, and writes the gradients of input and weights.
    """
    inputs = row_steps(case) * case.inputs
    outputs = row_steps(case) * case.directions * case.hidden
    weights = weight_count(case)
    values = weights + inputs + outputs
    if case.train:
        values += (weights + inputs + 2 * outputs) + (weights + inputs)
    return float(values * ITEM_BYTES[case.dtype])


def dependent_steps(case: Case) -> int:
    """Length of the chain: layers may work like a pipeline, and both directions at once."""
    return (case.steps + case.layers - 1) * (2 if case.train else 1)


def limit(case: Case, peaks: Peaks) -> Limit:
    """The largest of the three bounds.

    Raises
    ------
    ValueError
        If a peak is not above zero.
    """
    for name, peak in peaks._asdict().items():
        if peak is not None and not peak > 0:
            raise ValueError(f"{name} is {peak}, expected more than 0")
    bounds = {"math": flops(case) / peaks.flops, "memory": least_bytes(case) / peaks.bandwidth}
    if peaks.exchange is not None:
        bounds["exchange"] = dependent_steps(case) * peaks.exchange
    bound = max(bounds, key=lambda name: bounds[name])
    return Limit(bounds[bound], bound)
