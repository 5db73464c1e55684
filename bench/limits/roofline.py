"""What a layer cannot be faster than on this machine: its peaks, measured in the same run.

Three bounds hold for any algorithm: the products' FLOPs over the peak of their arithmetic (math);
the bytes that memory has to move over its bandwidth (memory); and the chain of dependent steps,
times one exchange between multiprocessors (exchange). The cells' own arithmetic is left out, as it
is small beside the products, and so is what a model has around its layers: embedding, decoder, and
update. Initial states are zero, which needs no product.

On a GPU a fourth bound (steps) is fastrnn's own: the cost model that picks its kernels
(`fastrnn.kernels.plan`), with this run's peaks in place of its nominal rates. The host costs
nothing in it, as in replayed graphs. What was not measured stays nominal, and the latency of a
step's instructions is roughly counted in machine code: so this bound is an estimate, unlike the
others.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from bench.calls.process import in_process
from bench.cases import ITEM_BYTES, Case
from bench.limits.synchronization import MissingExchangeError, fastest_in_process
from bench.peers.kernels import plan_of
from fastrnn.cell import GATES

if TYPE_CHECKING:
    from fastrnn.plans import DeviceFacts, Plan

COPY_BYTES = 1 << 28
CPU_SIZE, GPU_SIZES = 2048, (4096, 8192)
CPU_LAYER = (32, 64, 1024)  # T, N, and I = H
ROUNDS = 5
CPU_SECONDS, GPU_SECONDS = 1.0, 0.5  # at least, since a clock takes a while to rise
NO_HOST_US = 1e-9  # 0 would be the nominal figure
# A load from L2 (270 clocks at 1.7 GHz), which is part of the measured exchange and, in the model,
# of a step's instructions.
LOAD_US = 0.16
# By themselves, clusters are chosen only where they gain more than a little; and where the cheapest
# steps are persistent, a stepwise pass may still be the cheaper one.
ALGORITHMS = ("stepwise", "auto:cluster=0", "auto:cluster=1")


class Peaks(NamedTuple):
    """What the machine reached in this run."""

    flops: float  # per second, in products of the case's arithmetic
    bandwidth: float  # bytes per second, read and written ones counted alike
    exchange: Optional[float]  # seconds from one step to the next; None where it was not measured
    cache: int  # bytes of the last-level cache


class Found(NamedTuple):
    """Peaks by the name of the arithmetic, and how they came about."""

    peaks: Dict[str, Peaks]
    notes: Dict[str, Any]


class Limit(NamedTuple):
    """The least time of a call, and what sets it."""

    seconds: float
    bound: str  # math, memory or exchange; steps where it is fastrnn's own


# Peaks.


def measure_peaks(device: str) -> Found:
    """Peaks of ``cpu`` or ``cuda``.

    The CPU's are measured in another process. In this one they would leave OpenMP's threads behind:
    where there are more of those than processors, all of them sleep when they wait, which would
    slow the rows down.
    """
    if device == "cpu":
        return in_process(cpu_peaks)
    import torch

    try:
        exchanges = fastest_in_process()
    except MissingExchangeError as error:
        return Found(gpu_peaks(torch, None), {"exchange": f"not measured: {error}"})
    # How many blocks exchange is the kernel's choice, so the least counts.
    peaks = gpu_peaks(torch, min(exchanges.values()))
    return Found(peaks, {"exchange, seconds by blocks": exchanges})


def best(
    time_once: Callable[[], float], least: float, clock: Callable[[], float] = time.perf_counter
) -> float:
    """The shortest of calls that take at least so many seconds together."""
    begun, seconds = clock(), [time_once()]
    while len(seconds) < ROUNDS or clock() - begun < least:
        seconds.append(time_once())
    return min(seconds)


def cpu_peaks() -> Found:
    """Peaks of the CPU: the best library's products, and the bandwidth of a copy or of a sum.

    There is no exchange: threads meet in less time than a step of any of these layers computes.
    """
    products = _cpu_products()
    threads = len(os.sched_getaffinity(0))
    peaks = Peaks(max(products.values()), _cpu_bandwidth(threads), None, cache_bytes("cpu"))
    notes = {"products, FLOP/s": products, "bandwidth": f"NumPy's, in {threads} threads"}
    return Found({"float32": peaks}, notes)


def _cpu_best(call: Callable[[], Any]) -> float:
    def once() -> float:
        begun = time.perf_counter()
        call()
        return time.perf_counter() - begun

    return best(once, CPU_SECONDS)


def _cpu_products() -> Dict[str, float]:
    """FLOP/s by library; fastrnn's are those of a layer, which has packed its weights."""
    a, b = (np.ones((CPU_SIZE, CPU_SIZE), np.float32) for _ in range(2))
    product, flops = np.empty_like(a), 2 * CPU_SIZE**3
    found = {"NumPy": flops / _cpu_best(lambda: np.matmul(a, b, out=product))}
    if find_spec("torch") is not None:
        import torch

        tensors = [torch.from_numpy(array) for array in (a, b, product)]
        found["PyTorch"] = flops / _cpu_best(lambda: torch.matmul(*tensors[:2], out=tensors[2]))
    if find_spec("fastrnn._C") is not None:
        from fastrnn import kernels

        steps, rows, width = CPU_LAYER
        x, weight = np.ones((steps, rows, width), np.float32), np.ones((width, width), np.float32)
        weights = [weight, weight, *[np.zeros(width, np.float32)] * 2]
        flops = 4 * steps * rows * width**2
        found["fastrnn"] = flops / _cpu_best(lambda: kernels.forward("rnn_tanh", x, weights))
    return found


def _cpu_bandwidth(threads: int) -> float:
    """Bytes per second, in threads that each copy or add up a part without Python's lock."""
    source = np.zeros(COPY_BYTES // 8)
    target = np.ones_like(source)
    sources, targets = (np.array_split(array, threads) for array in (source, target))
    with ThreadPoolExecutor(threads) as pool:
        copy = _cpu_best(lambda: list(pool.map(np.copyto, targets, sources)))
        read = _cpu_best(lambda: list(pool.map(np.add.reduce, sources)))
    return COPY_BYTES * max(2 / copy, 1 / read)


def gpu_peaks(torch: Any, exchange: Optional[float]) -> Dict[str, Peaks]:
    """Peaks of the GPU, by the name of the arithmetic: ``tf32`` and the case's types."""

    def gpu_best(call: Callable[[], Any]) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

        def once() -> float:
            begin.record()
            call()
            end.record()
            end.synchronize()
            return begin.elapsed_time(end) / 1e3

        return best(once, GPU_SECONDS)

    source = torch.zeros(COPY_BYTES, dtype=torch.float32, device="cuda")
    target = torch.ones_like(source)
    size = 4 * COPY_BYTES
    copied = 2 * size / gpu_best(lambda: target.copy_(source))
    bandwidth = max(copied, size / gpu_best(source.sum))
    peaks = {}
    for name in ("float32", "tf32", "float16", "bfloat16"):
        torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
        dtype = getattr(torch, "float32" if name == "tf32" else name)
        flops = []
        for width in GPU_SIZES:
            a, b = (torch.randn(width, width, device="cuda").to(dtype) for _ in range(2))
            flops.append(2 * width**3 / gpu_best(partial(torch.matmul, a, b)))
        peaks[name] = Peaks(max(flops), bandwidth, exchange, cache_bytes("cuda"))
    return peaks


def cache_bytes(device: str) -> int:
    """The last-level cache of ``cuda``, or of ``cpu`` as far as this process may run there."""
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


# Limits.


def limits_of(
    case: Case, peaks: Peaks, sets: Optional[int], facts: Optional[DeviceFacts]
) -> Dict[str, Any]:
    """Seconds and bound of a row: its limit, and on a GPU that of any algorithm as well.

    Parameters
    ----------
    sets
        As for `limit`.
    facts
        Of the GPU; None on a CPU.
    """
    found = limit(case, peaks, sets)
    if facts is None:
        return {"limit": found.seconds, "bound": found.bound}
    own = max(found, Limit(steps_seconds(case, peaks, facts), "steps"))
    anyone = {"any_limit": found.seconds, "any_bound": found.bound}
    return {"limit": own.seconds, "bound": own.bound, **anyone}


def limit(case: Case, peaks: Peaks, sets: Optional[int]) -> Limit:
    """The largest of the bounds that hold for any algorithm.

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
    moved = cold_bytes(case, cache) if sets is None else warm_bytes(case, sets, cache)
    bounds = {"math": flops(case) / peaks.flops, "memory": moved / peaks.bandwidth}
    if peaks.exchange is not None:
        bounds["exchange"] = exchanges(case) * peaks.exchange
    bound = max(bounds, key=lambda name: bounds[name])
    return Limit(bounds[bound], bound)


def row_steps(case: Case) -> int:
    """Steps of all rows: N*T, or the sum of the lengths."""
    return int(case.lengths().sum())


def weight_counts(case: Case) -> Tuple[int, int]:
    """Values of the input's and of the recurrent matrices; biases are nothing beside them."""
    gate_rows, of_input, recurrent = GATES[case.cell] * case.hidden, 0, 0
    for layer in range(case.layers):
        of_input += case.directions * gate_rows * case.layer_inputs(layer)
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


def warm_bytes(case: Case, sets: int, cache: int) -> float:
    """Bytes that memory moves in a call that finds in the cache what the calls before have left.

    Calls rotate through the input sets. A round touches all of these, and the same weights and
    results in each call. At most what the cache holds is there still, of the round before.
    """
    touched = sets * set_bytes(case) + weight_bytes(case) + result_bytes(case)
    return max(0.0, touched - cache) / sets


def cold_bytes(case: Case, cache: int) -> float:
    """Bytes that memory moves in a call that finds nothing of its own in the cache.

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


# The limit of fastrnn's own kernels.


def device_facts() -> DeviceFacts:
    """What the cost model knows of the GPU."""
    from fastrnn._native import library
    from fastrnn.plans import DeviceFacts

    return DeviceFacts(**library().device_facts(0))


def flops_beside_steps(case: Case) -> List[float]:
    """Of the products that no step waits for: of forward, and for training of backward."""
    of_input, recurrent = _products(case)
    return [of_input, 2 * of_input + recurrent][: 2 if case.train else 1]


def steps_seconds(case: Case, peaks: Peaks, facts: DeviceFacts) -> float:
    """The cheapest plan's seconds, of both passes and all layers.

    The plan counts that would be the cheapest on this machine, whatever calls run with, so this is
    below every plan.
    """
    measured = replace(
        facts,
        exchange_us=max(peaks.exchange * 1e6 - LOAD_US, 0.0) if peaks.exchange else 0.0,
        memory_bytes_per_us=peaks.bandwidth / 1e6,
        products_per_us=peaks.flops / 2 / 1e6 / facts.multiprocessors,
        host_us=NO_HOST_US,
    )
    plans = [plan_of(case, measured, algorithm) for algorithm in ALGORITHMS]
    passes = [[plan.forward for plan in plans], [plan.backward for plan in plans]]
    return sum(
        min(pass_seconds(case, plan, flops / peaks.flops) for plan in of_pass)
        for of_pass, flops in zip(passes, flops_beside_steps(case))
    )


def pass_seconds(case: Case, plan: Plan, products: float) -> float:
    """Of a pass: its steps, and the products beside them.

    A persistent kernel leaves no room for these. Of stepwise directions at once, one may hide them
    behind the launches of the other, so there they count nothing.
    """
    steps = case.layers * plan.total_us / 1e6
    at_once = plan.algorithm == "stepwise" and case.directions > 1
    return steps if at_once else steps + products
