"""One row: build everyone's layer, check the results, time who is right."""

from __future__ import annotations

import time
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any, Callable, Dict, List, Mapping, Optional

from bench import data as bench_data
from bench import gpu_memory, language_model, timing
from bench.cases import Case
from bench.data import Data, Results
from bench.limits import Peaks, limit
from bench.peers import Peer

# Seconds to spend on timing one row.
BUDGET = 5.0

Row = Dict[str, Any]


def measure(
    case: Case,
    device: str,
    peers: List[Peer],
    missing: Mapping[str, str],
    peaks: Mapping[str, Peaks],
    memory: Optional[Callable[[Peer, Case], Optional[float]]] = None,
    budget: float = BUDGET,
) -> Row:
    """Return a row for the file of results.

    Parameters
    ----------
    peers, missing
        Those that are installed, and why the others are not.
    memory
        Gives the peak MiB of a peer on the CPU, where a process of its own has to measure it.
    """
    sets = _input_sets(case, device)
    if case.task == "layer":
        data = bench_data.draw(case, sets)
        wanted = reference(case, data, device)
    else:
        data = language_model.draw(case)
        wanted = language_model.expected(case, data)
    entries: Dict[str, Row] = {
        name: {"status": "missing", "reason": reason} for name, reason in missing.items()
    }
    layers: Dict[str, Any] = {}
    for peer in peers:
        entries[peer.name], layer = checked(peer, case, data, device, wanted)
        if layer is not None:
            layers[peer.name] = layer
    calls = {name: layer.run for name, layer in layers.items()}
    for name, times in _times(calls, sets, budget, device).items():
        entries[name].update(times)
    if memory is not None and case.task == "layer":
        for peer in peers:
            if peer.name in layers:
                entries[peer.name]["peak_mib"] = memory(peer, case)
    found = limit(case, peaks["tf32" if case.tf32 else case.dtype])
    for name in layers:
        entries[name]["fraction"] = found.seconds / entries[name]["seconds"]
    return {
        "case": case.name,
        "sizes": asdict(case),
        "limit": found.seconds,
        "bound": found.bound,
        "input_sets": sets,
        "peers": entries,
    }


def _input_sets(case: Case, device: str) -> int:
    if case.task != "layer":
        return 1
    if device == "cpu":
        return 2
    import torch

    cache = getattr(torch.cuda.get_device_properties(0), "L2_cache_size", 50 << 20)
    return timing.input_sets(4 * case.steps * case.batch * case.inputs, cache)


def reference(case: Case, data: Data, device: str) -> Results:
    """Results in float64: PyTorch's where it is, which are there sooner, or else the oracle's."""
    if find_spec("torch") is None:
        return bench_data.expected(case, data)
    from bench.peers.pytorch import PytorchLayer

    layer = PytorchLayer(case, data._replace(xs=data.xs[:1]), device, "float64")
    layer.run(0)
    return layer.results()


def _build(peer: Peer, case: Case, data: Any, device: str) -> Any:
    if case.task == "layer":
        return peer.build(case, data, device)
    model = language_model.build(peer.name, case, data, device)
    if model is None:
        raise NotImplementedError("its layer is in no language model here")
    return model


def checked(peer: Peer, case: Case, data: Any, device: str, wanted: Results) -> Any:
    """A peer's entry in the row, and its layer if that may be timed."""
    reason = peer.supports(case, device)
    if reason:
        return {"status": "unsupported", "reason": reason}, None
    before = gpu_memory.start() if device == "cuda" else None
    try:
        layer = _build(peer, case, data, device)
        layer.run(0)
    except NotImplementedError as error:
        return {"status": "unsupported", "reason": str(error)}, None
    entry: Row = {"status": "ok"}
    if before is not None:
        entry["peak_mib"] = gpu_memory.peak_mib(before)
    wrong = bench_data.difference(case, layer.results(), wanted)
    if wrong:
        return {"status": "wrong", "reason": wrong}, None
    return entry, layer


def _times(
    calls: Mapping[str, timing.Call], sets: int, budget: float, device: str
) -> Dict[str, Dict[str, Any]]:
    """Entries of the times, in seconds of a call; on a GPU also of a replayed graph."""
    if device == "cpu":
        return {n: _entry("", t) for n, t in timing.time_calls(calls, sets, budget).items()}
    import torch

    def event() -> Any:
        return torch.cuda.Event(enable_timing=True)

    times = timing.time_on_gpu(calls, sets, budget / 2, event, time.perf_counter)
    entries = {name: _entry("", found) for name, found in times.items()}
    graphs = {name: timing.capture(torch, call, sets) for name, call in calls.items()}
    replays = {name: graph.call for name, graph in graphs.items() if graph.call}
    for name, graph in graphs.items():
        if graph.reason:
            entries[name]["graph_reason"] = graph.reason
    for name, found in timing.time_on_gpu(replays, sets, budget / 2, event).items():
        entries[name].update(_entry("graph_", found))
    return entries


def _entry(prefix: str, times: timing.Times) -> Dict[str, Any]:
    return {
        f"{prefix}seconds": times.median,
        f"{prefix}low": times.low,
        f"{prefix}high": times.high,
        f"{prefix}rounds": times.rounds,
    }
