"""Peak memory of a layer: on the CPU of a process of its own, on a GPU of this one's.

The figure is in MiB, beyond what is in use with libraries, weights and inputs in place on the CPU,
and before the layer is built on a GPU.
"""

from __future__ import annotations

import gc
import importlib
from pathlib import Path
from typing import Any, Callable, Dict, NamedTuple

from bench import data, language_model
from bench.calls.graphs import one_line
from bench.calls.process import in_process
from bench.cases import Case
from bench.peers import Layer, all_peers

CLEAR = Path("/proc/self/clear_refs")


def cpu_peak(name: str, case: Case) -> Dict[str, Any]:
    """What a row says of a peer: ``peak_mib``, or ``peak_reason`` where there is none."""
    try:
        return {"peak_mib": in_process(_process_peak, name, case)}
    except Exception as error:  # of the other process, or its end
        return {"peak_reason": one_line(error)}


def _process_peak(name: str, case: Case) -> float:
    """Run a peer's layer twice in this process."""
    (peer,) = (p for p in all_peers("cpu") if p.name == name)
    importlib.import_module(peer.package)
    of_layer = case.task == "layer"
    values: Any = data.draw(case) if of_layer else language_model.draw(case)
    CLEAR.write_text("5")  # the largest value begins anew; some containers forbid it
    before, libraries = _resident_mib("VmRSS"), _resident_mib("RssFile")
    layer = peer.build(case, values, "cpu") if of_layer else peer.build_model(case, values, "cpu")
    for _ in range(2):
        layer.run(0)
    # Pages of the libraries become resident when they are first used.
    return _resident_mib("VmHWM") - before - (_resident_mib("RssFile") - libraries)


def _resident_mib(field: str) -> float:
    """``VmRSS`` or, its largest value so far, ``VmHWM`` of this process."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


def gpu_peak(build: Callable[[], Layer], in_pool: bool) -> Dict[str, Any]:
    """What a row says of a layer that is built, run and closed here.

    Memory is PyTorch's, that of fastrnn's pool, and what others have taken by the end.

    Parameters
    ----------
    in_pool
        Whether fastrnn's pool has a part of it.
    """
    import torch

    gc.collect()  # an error's traceback may be in a cycle, and keep the layers of a row before
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    allocated, outside, pool = torch.cuda.memory_allocated(), _outside(torch), _pool(set_back=True)
    layer = build()
    try:
        layer.run(0)
        torch.cuda.synchronize()
        of_torch = torch.cuda.max_memory_allocated() - allocated
        of_pool = _pool(set_back=False).most - pool.now if in_pool else 0
        # The pool's memory is outside of PyTorch's too, as far as it did not have it before.
        others = max(0, _outside(torch) - outside - of_pool)
    finally:
        layer.close()
    return {"peak_mib": (of_torch + of_pool + others) / 2**20}


class Pool(NamedTuple):
    """Bytes of fastrnn's pool that are in use, and were at most since that was set back."""

    now: int
    most: int


def _pool(set_back: bool) -> Pool:
    """What fastrnn's library tells of its pool."""
    from fastrnn._native import library

    return Pool(*library().pool_bytes(0, set_back))


def _outside(torch: Any) -> int:
    """What is in use besides PyTorch's."""
    free, total = torch.cuda.mem_get_info()
    return total - free - torch.cuda.memory_reserved()
