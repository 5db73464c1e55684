"""What a layer cannot be faster than on a machine of given peaks, whatever computes it.

Three bounds, the largest of which counts: the products' FLOPs over the peak of the arithmetic that
is used; the bytes that must come from memory or go there over the bandwidth; and the chain of
steps, each of which needs what all units of the one before have computed, times one exchange of it
between the multiprocessors. The cells' own arithmetic is left out, as it is small beside the
products, and so is what a model has around its layers: embedding, decoder, and update.

Initial states are zero, and whoever knows that needs no product with them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import List, NamedTuple, Optional, Tuple

from bench.cases import GATES, Case

ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


class Peaks(NamedTuple):
    """What the machine reached in this run."""

    flops: float  # per second, in products of the case's arithmetic
    bandwidth: float  # bytes per second, read and written ones counted alike
    exchange: Optional[float]  # seconds from one step to the next; None where it was not measured
    cache: int  # bytes of the last one, which all of the device shares


class Limit(NamedTuple):
    """The least time of a call, and what sets it."""

    seconds: float
    bound: str  # math, memory or exchange; steps where it is fastrnn's own


def cache_bytes(device: str) -> int:
    """The last cache of ``cpu``, as far as this process may run there, or ``cuda``."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_properties(0).L2_cache_size
    sizes = {}
    for processor in os.sched_getaffinity(0):
        folder = Path(f"/sys/devices/system/cpu/cpu{processor}/cache")
        last = max(folder.glob("index*"), key=lambda index: int(index.name[len("index") :]))
        # Such as 32768K, and the processors that share it.
        size, shared = ((last / name).read_text().strip() for name in ("size", "shared_cpu_list"))
        sizes[shared] = int(size.rstrip("K")) << 10
    return sum(sizes.values())


def row_steps(case: Case) -> int:
    """Steps of all rows: N*T, or the sum of the lengths."""
    return int(case.lengths().sum())


def weight_counts(case: Case) -> Tuple[int, int]:
    """Values of the input's and of the recurrent matrices; biases are nothing beside them."""
    gate_rows, of_input, recurrent = GATES[case.cell] * case.hidden, 0, 0
    for layer in range(case.layers):
        inputs = case.inputs if layer == 0 else case.directions * case.hidden
        of_input += case.directions * gate_rows * inputs
        recurrent += case.directions * gate_rows * case.hidden
    return of_input, recurrent


def _products(case: Case) -> Tuple[float, float]:
    """FLOPs of the input's and of the recurrent products, forward: 2 a weight, row and step."""
    of_input, recurrent = weight_counts(case)
    steps = row_steps(case)
    return 2.0 * of_input * steps, 2.0 * recurrent * (steps - case.batch)


def flops(case: Case) -> float:
    """Of all products; backward does twice as many as forward."""
    return sum(_products(case)) * (3 if case.train else 1)


def flops_beside_steps(case: Case) -> List[float]:
    """Of the products that no step waits for: of forward, and for training of backward."""
    of_input, recurrent = _products(case)
    return [of_input, 2 * of_input + recurrent][: 2 if case.train else 1]


def set_bytes(case: Case) -> int:
    """Bytes of one input set: the input, and for training the gradient of the output."""
    steps, outputs = row_steps(case), case.directions * case.hidden
    return ITEM_BYTES[case.dtype] * steps * (case.inputs + outputs * case.train)


def weight_bytes(case: Case) -> int:
    """Bytes of the weights that a call needs: without a state, no recurrent ones."""
    of_input, recurrent = weight_counts(case)
    return ITEM_BYTES[case.dtype] * (of_input + (recurrent if case.steps > 1 else 0))


def result_bytes(case: Case) -> int:
    """Bytes of the output, and for training of the gradients of weights and input."""
    steps, outputs = row_steps(case), case.directions * case.hidden
    of_steps = ITEM_BYTES[case.dtype] * steps * (outputs + case.inputs * case.train)
    return of_steps + weight_bytes(case) * case.train


def least_bytes(case: Case, sets: int, cache: int) -> float:
    """Bytes of a call that memory must move, however well the cache is used.

    Calls rotate through the input sets. A round touches all of these, and the same weights and
    results in each call. At most what the cache holds is there still, of the round before.
    """
    touched = sets * set_bytes(case) + weight_bytes(case) + result_bytes(case)
    return max(0.0, touched - cache) / sets


def cold_bytes(case: Case, cache: int) -> float:
    """Bytes that memory must move for a call that finds nothing of its own in the cache.

    It reads its weights and its input set. What it computes may stay in the cache, as far as that
    goes; in a language model this is the input set, too, which the layers around compute.
    """
    read, computed = weight_bytes(case), result_bytes(case)
    if case.task == "layer":
        read += set_bytes(case)
    else:
        computed += set_bytes(case)
    return read + max(0.0, computed - cache)


def exchanges(case: Case) -> int:
    """How often a step has to wait for another: the chain's length.

    Layers may work like a pipeline, and both directions at once; but a layer above both directions
    begins when the layer below has ended.
    """
    steps = case.layers * case.steps if case.bidirectional else case.steps + case.layers - 1
    return (steps - 1) * (2 if case.train else 1)


def limit(case: Case, peaks: Peaks, sets: Optional[int]) -> Limit:
    """The largest of the three bounds.

    Parameters
    ----------
    sets
        How many input sets calls rotate through, or None where the cache is evicted before each.

    Raises
    ------
    ValueError
        If a peak is not above zero.
    """
    for name in ("flops", "bandwidth", "exchange"):
        peak = getattr(peaks, name)
        if peak is not None and not peak > 0:
            raise ValueError(f"{name} is {peak}, expected more than 0")
    cache = peaks.cache
    least = cold_bytes(case, cache) if sets is None else least_bytes(case, sets, cache)
    bounds = {"math": flops(case) / peaks.flops, "memory": least / peaks.bandwidth}
    if peaks.exchange is not None:
        bounds["exchange"] = exchanges(case) * peaks.exchange
    bound = max(bounds, key=lambda name: bounds[name])
    return Limit(bounds[bound], bound)
