"""Peak memory of a layer on a GPU: PyTorch's own, and that of fastrnn's pool.

Memory of cudaMalloc by others is what remains in use after the call.
"""

from __future__ import annotations

import gc
from typing import Any, Dict, NamedTuple


class Pool(NamedTuple):
    """Bytes of fastrnn's pool that are in use, and were at most since that was set back."""

    now: int
    most: int


class Start(NamedTuple):
    """What was in use before, in bytes."""

    allocated: int
    outside: int
    pool: Pool


def _outside(torch: Any) -> int:
    """What is in use besides PyTorch's."""
    free, total = torch.cuda.mem_get_info()
    return total - free - torch.cuda.memory_reserved()


def _pool(set_back: bool) -> Pool:
    """What fastrnn's library tells of its pool."""
    from fastrnn import _C

    return Pool(*_C.pool_bytes(0, set_back))


def start() -> Start:
    """Begin to watch."""
    import torch

    gc.collect()  # an error's traceback may be in a cycle, and keep the layers of a row before
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return Start(torch.cuda.memory_allocated(), _outside(torch), _pool(set_back=True))


def peak(before: Start, in_pool: bool) -> Dict[str, Any]:
    """What a row says of the peak since then, beyond what was in use before, in MiB.

    Parameters
    ----------
    in_pool
        Whether fastrnn's pool has a part of it.
    """
    import torch

    torch.cuda.synchronize()
    found = torch.cuda.max_memory_allocated() - before.allocated
    of_pool = 0
    if in_pool:
        of_pool = _pool(set_back=False).most - before.pool.now
    # The pool's memory is outside of PyTorch's too, as far as it did not have it before.
    others = max(0, _outside(torch) - before.outside - of_pool)
    return {"peak_mib": (found + of_pool + others) / 2**20}
