"""What this machine reaches, measured in the run whose limits it gives.

The peak of the products is the library's best of a few large square ones; the bandwidth the better
of a copy and of a sum that outgrow all caches; and the exchange that of synchronization.py. How
many blocks exchange, and how, is the kernel's choice, so the least of all counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))
from bench.limits import Peaks, cache_bytes
from bench.synchronization import MissingExchangeError, fastest_in_process

COPY_BYTES = 1 << 28
CPU_SIZE, GPU_SIZES = 2048, (4096, 8192)
CPU_LAYER = (32, 64, 1024)  # T, N, and I = H
ROUNDS = 5
LEAST_SECONDS = 1.0  # on the CPU, whose clock takes a while to rise
WARM_UP_SECONDS = 0.5  # on a GPU, for the same reason


class Found(NamedTuple):
    """Peaks by the name of the arithmetic, and how they came about."""

    peaks: Dict[str, Peaks]
    notes: Dict[str, Any]


def best(call: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    """The shortest of some calls, in seconds."""
    begun = clock()
    seconds: List[float] = []
    while len(seconds) < ROUNDS or clock() - begun < LEAST_SECONDS:
        before = clock()
        call()
        seconds.append(clock() - before)
    return min(seconds)


def on_cpu() -> Found:
    """Peaks of the CPU; of products that of the library that is best at them.

    There is no exchange: threads meet in less time than a step of any of these layers computes.
    """
    products = _cpu_products()
    threads = len(os.sched_getaffinity(0))
    peaks = Peaks(max(products.values()), _cpu_bandwidth(threads), None, cache_bytes("cpu"))
    notes = {"products, FLOP/s": products, "bandwidth": f"NumPy's, in {threads} threads"}
    return Found({"float32": peaks}, notes)


def _cpu_products() -> Dict[str, float]:
    """FLOP/s by library, in square products.

    None of them is the best on every processor. fastrnn's are those of a layer, which has packed
    its weights.
    """
    a, b = (np.ones((CPU_SIZE, CPU_SIZE), np.float32) for _ in range(2))
    product, flops = np.empty_like(a), 2 * CPU_SIZE**3
    found = {"NumPy": flops / best(lambda: np.matmul(a, b, out=product))}
    if find_spec("torch") is not None:
        import torch

        tensors = [torch.from_numpy(array) for array in (a, b, product)]
        found["PyTorch"] = flops / best(lambda: torch.matmul(*tensors[:2], out=tensors[2]))
    if find_spec("fastrnn._C") is not None:
        from fastrnn import kernels

        steps, rows, width = CPU_LAYER
        x, weight = np.ones((steps, rows, width), np.float32), np.ones((width, width), np.float32)
        weights = [weight, weight, *[np.zeros(width, np.float32)] * 2]
        flops = 4 * steps * rows * width**2
        found["fastrnn"] = flops / best(lambda: kernels.forward("rnn_tanh", x, weights))
    return found


def _cpu_bandwidth(threads: int) -> float:
    """Bytes per second, in so many threads: NumPy copies and adds up in one, and without a lock."""
    source = np.zeros(COPY_BYTES // 8)
    target = np.ones_like(source)
    sources, targets = (np.array_split(array, threads) for array in (source, target))
    with ThreadPoolExecutor(threads) as pool:
        copy = best(lambda: list(pool.map(np.copyto, targets, sources)))
        read = best(lambda: list(pool.map(np.add.reduce, sources)))
    return COPY_BYTES * max(2 / copy, 1 / read)


def on_gpu(torch: Any, exchange: Optional[float]) -> Dict[str, Peaks]:
    """Peaks of the GPU, by the name of the arithmetic: ``tf32`` and the case's types."""

    def seconds(call: Callable[[], Any]) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

        def once() -> None:
            begin.record()
            call()
            end.record()
            end.synchronize()

        found = []
        for _ in range(ROUNDS + 1):
            once()
            found.append(begin.elapsed_time(end) / 1e3)
        return min(found[1:])

    source = torch.zeros(COPY_BYTES, dtype=torch.float32, device="cuda")
    target = torch.ones_like(source)
    _warm_up(torch, lambda: target.copy_(source))
    size = 4 * COPY_BYTES
    copied = 2 * size / seconds(lambda: target.copy_(source))
    bandwidth = max(copied, size / seconds(source.sum))
    flops: Dict[str, float] = {}
    for name in ("float32", "tf32", "float16", "bfloat16"):
        torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
        kind = getattr(torch, "float32" if name == "tf32" else name)
        for width in GPU_SIZES:
            a, b = (torch.randn(width, width, device="cuda").to(kind) for _ in range(2))
            product = partial(torch.matmul, a, b)
            _warm_up(torch, product)
            flops[name] = max(2 * width**3 / seconds(product), flops.get(name, 0.0))
    cache = cache_bytes("cuda")
    return {name: Peaks(rate, bandwidth, exchange, cache) for name, rate in flops.items()}


def _warm_up(
    torch: Any, call: Callable[[], Any], clock: Callable[[], float] = time.perf_counter
) -> None:
    begun = clock()
    while clock() - begun < WARM_UP_SECONDS:
        call()
        torch.cuda.synchronize()


def in_process() -> Found:
    """The CPU's peaks, measured in a process of its own.

    In this one they would leave OpenMP's threads behind. Where there are more of those than
    processors, all of them fall asleep at once when they wait, which would slow the rows down.
    """
    command = [sys.executable, __file__]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    peaks = {name: Peaks(*values) for name, values in found["peaks"].items()}
    return Found(peaks, found["notes"])


def measure(device: str) -> Found:
    """Peaks of ``cpu`` or ``cuda``."""
    if device == "cpu":
        return in_process()
    import torch

    try:
        exchanges = fastest_in_process()
    except MissingExchangeError as error:
        return Found(on_gpu(torch, None), {"exchange": f"not measured: {error}"})
    peaks = on_gpu(torch, min(exchanges.values()))
    return Found(peaks, {"exchange, seconds by blocks": exchanges})


if __name__ == "__main__":
    print(json.dumps(on_cpu()._asdict()))
