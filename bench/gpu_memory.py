"""Peak memory of a call on a GPU: PyTorch's own, and the device's pool, which fastrnn takes from.

Memory of cudaMalloc by others is what remains in use after the call.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

USED_MEM_CURRENT, USED_MEM_HIGH = 7, 8  # CUmemPool_attribute


class Start(NamedTuple):
    """What was in use before, in bytes."""

    allocated: int
    pool: int
    outside: int


def _outside(torch: Any) -> int:
    """What is in use besides PyTorch's and the pool's."""
    free, total = torch.cuda.mem_get_info()
    return total - free - torch.cuda.memory_reserved()


def _pool(attribute: int, reset: bool = False) -> int:
    driver = ctypes.CDLL("libcuda.so.1")
    pool, value = ctypes.c_void_p(), ctypes.c_uint64(0)
    calls = [driver.cuDeviceGetDefaultMemPool(ctypes.byref(pool), 0)]
    if reset:
        calls.append(driver.cuMemPoolSetAttribute(pool, USED_MEM_HIGH, ctypes.byref(value)))
    calls.append(driver.cuMemPoolGetAttribute(pool, attribute, ctypes.byref(value)))
    if any(calls):
        raise RuntimeError(f"the driver's memory pool failed with CUDA's errors {calls}")
    return value.value


def start() -> Start:
    """Begin to watch."""
    import torch

    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return Start(
        torch.cuda.memory_allocated(), _pool(USED_MEM_CURRENT, reset=True), _outside(torch)
    )


def peak_mib(before: Start) -> float:
    """The peak since then, beyond what was in use before, in MiB."""
    import torch

    torch.cuda.synchronize()
    pool = _pool(USED_MEM_HIGH) - before.pool
    others = max(0, _outside(torch) - before.outside - pool)
    return (torch.cuda.max_memory_allocated() - before.allocated + pool + others) / 2**20
