"""What this machine reaches, measured in the run whose limits it gives.

The peak of the products is the library's best of a few large square ones, the bandwidth that of a
copy that outgrows all caches, and the exchange that of exchange.cu, which is built with nvcc.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import numpy as np

from bench.limits import Peaks

COPY_BYTES = 1 << 28
CPU_SIZE, GPU_SIZES = 2048, (4096, 8192)
EXCHANGES = 10000
ROUNDS = 5
LEAST_SECONDS = 1.0  # on the CPU, whose clock takes a while to rise


def best(call: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    """The shortest of some calls, in seconds."""
    begun, seconds = clock(), []
    while len(seconds) < ROUNDS or clock() - begun < LEAST_SECONDS:
        before = clock()
        call()
        seconds.append(clock() - before)
    return min(seconds)


def on_cpu() -> Dict[str, Peaks]:
    """Peaks of the CPU, by the name of the arithmetic; of products NumPy's or PyTorch's.

    There is no exchange: threads meet in less time than a step of any of these layers computes.
    """
    a, b = (np.ones((CPU_SIZE, CPU_SIZE), np.float32) for _ in range(2))
    product = np.empty_like(a)
    seconds = best(lambda: np.matmul(a, b, out=product))
    if find_spec("torch") is not None:
        import torch

        tensors = [torch.from_numpy(array) for array in (a, b, product)]
        seconds = min(seconds, best(lambda: torch.matmul(*tensors[:2], out=tensors[2])))
    source = np.zeros(COPY_BYTES, np.uint8)
    target = np.ones_like(source)
    bandwidth = 2 * COPY_BYTES / best(lambda: np.copyto(target, source))
    return {"float32": Peaks(2 * CPU_SIZE**3 / seconds, bandwidth, None)}


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

    source = torch.zeros(4 * COPY_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.ones_like(source)
    bandwidth = 8 * COPY_BYTES / seconds(lambda: target.copy_(source))
    flops: Dict[str, float] = {}
    for name in ("float32", "tf32", "float16", "bfloat16"):
        torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
        kind = getattr(torch, "float32" if name == "tf32" else name)
        for size in GPU_SIZES:
            a, b = (torch.randn(size, size, device="cuda").to(kind) for _ in range(2))
            rate = 2 * size**3 / seconds(lambda a=a, b=b: torch.matmul(a, b))
            flops[name] = max(rate, flops.get(name, 0.0))
    return {name: Peaks(rate, bandwidth, exchange) for name, rate in flops.items()}


def build_exchange(folder: Path, architecture: str) -> Path:
    """Compile exchange.cu for ``90`` or the like; the path of the library."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        raise FileNotFoundError("nvcc was not found, which builds bench/exchange.cu")
    library = folder / "libexchange.so"
    command = [nvcc, "-std=c++17", "-O3", f"-arch=sm_{architecture}", "-shared"]
    command += [
        "-Xcompiler",
        "-fPIC",
        "-o",
        str(library),
        str(Path(__file__).parent / "exchange.cu"),
    ]
    subprocess.run(command, check=True)
    return library


def exchange_seconds(torch: Any) -> float:
    """Seconds of one exchange between all multiprocessors."""
    major, minor = torch.cuda.get_device_capability()
    blocks = torch.cuda.get_device_properties(0).multi_processor_count
    with tempfile.TemporaryDirectory() as folder:
        library = ctypes.CDLL(str(build_exchange(Path(folder), f"{major}{minor}")))
    function = library.BenchExchange
    function.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]
    stream, found = torch.cuda.current_stream(), []
    for _ in range(ROUNDS + 1):
        flags = torch.zeros(blocks, dtype=torch.int32, device="cuda")
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        status = function(flags.data_ptr(), blocks, EXCHANGES, stream.cuda_stream)
        end.record()
        end.synchronize()
        if status != 0:
            raise RuntimeError(f"BenchExchange failed with CUDA's error {status}")
        found.append(begin.elapsed_time(end) / 1e3 / EXCHANGES)
    return min(found[1:])


def measure(device: str) -> Dict[str, Peaks]:
    """Peaks of ``cpu`` or ``cuda``."""
    if device == "cpu":
        return on_cpu()
    import torch

    return on_gpu(torch, exchange_seconds(torch))


def as_json(peaks: Dict[str, Peaks]) -> Dict[str, List[Optional[float]]]:
    """For a file of results: FLOP/s, bytes/s and seconds of an exchange."""
    return {name: list(values) for name, values in peaks.items()}
