"""One row: build everyone's layer, check the results, time who is right.

Whatever goes wrong with one who takes part is written into the row; the others are measured all the
same. Only a GPU whose context an error has destroyed ends the row, and all rows after it.
"""

from __future__ import annotations

import sys
import traceback
from contextlib import ExitStack
from dataclasses import asdict, replace
from importlib.util import find_spec
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from bench import data as bench_data
from bench import gpu_memory, graphs, language_model, limits, timing
from bench.cases import HIDDEN, Case
from bench.data import Data, Results
from bench.graphs import one_line
from bench.limits import Peaks, limit
from bench.peers import Layer, Peer, mandatory_groups

# Seconds to spend on timing one row, of the quick part and of the full grid.
BUDGET, FULL_BUDGET = 5.0, 1.5
GRAPHS_SHARE = 0.4  # of that, on a GPU

Row = Dict[str, Any]
Memory = Callable[[Peer, Case], Row]


class DeadDeviceError(Exception):
    """An error has destroyed the GPU's context, and with it every layer of this process."""


def frame(case: Case, device: str, peaks: Mapping[str, Peaks]) -> Row:
    """A row before anyone is in it."""
    sets = _input_sets(case, device)
    # Graphs rotate through fewer sets than calls do, and the limit is both's.
    rotated = min(sets, graphs.MOST_GRAPHS)
    found = limit(case, peaks["tf32" if case.tf32 else case.dtype], rotated)
    return {
        "case": case.name,
        "sizes": asdict(case),
        "limit": found.seconds,
        "bound": found.bound,
        "input_sets": sets,
        "peers": {},
    }


def measure(
    case: Case,
    device: str,
    peers: List[Peer],
    missing: Mapping[str, str],
    peaks: Mapping[str, Peaks],
    memory: Optional[Memory] = None,
    budget: float = BUDGET,
    earlier: Sequence[Row] = (),
) -> Row:
    """Return a row for the file of results.

    Parameters
    ----------
    peers, missing
        Those that are installed, and why the others are not.
    memory
        Gives the peak of a peer on the CPU, where a process of its own has to measure it.
    earlier
        Rows of the same run; see `refused_before`.

    Returns
    -------
    dict
        ``failures`` says what of the mandatory ones went wrong, and ``dead``, where it is there,
        why no further row can be measured by this process.
    """
    row = frame(case, device, peaks)
    sets, entries = row["input_sets"], row["peers"]
    entries.update({n: {"status": "missing", "reason": why} for n, why in missing.items()})
    if case.task == "layer":
        data: Any = bench_data.draw(case, sets)
        wanted = reference(case, data, device)
    else:
        data = language_model.draw(case)
        wanted = language_model.expected(case, data)
    with ExitStack() as stack:
        try:
            layers = _layers(case, device, peers, data, wanted, entries, earlier, stack)
            _time(layers, entries, sets, budget, device)
            if device == "cuda":
                _replay(case, layers, entries, wanted, sets, budget)
        except DeadDeviceError as error:
            row["dead"] = str(error)
            stack.pop_all()  # nothing can be given back any more
            _bury(peers, entries)
    if memory is not None:
        for peer in peers:
            if entries[peer.name]["status"] == "ok":
                entries[peer.name].update(memory(peer, case))
    row["failures"] = failures(peers, entries, device, case.task)
    if "dead" in row:
        row["failures"].append(f"the GPU: {row['dead']}")
    return row


def _layers(
    case: Case,
    device: str,
    peers: List[Peer],
    data: Any,
    wanted: Results,
    entries: Dict[str, Row],
    earlier: Sequence[Row],
    stack: ExitStack,
) -> Dict[str, Layer]:
    """The layers that may be timed, which the stack closes."""
    layers: Dict[str, Layer] = {}
    for peer in peers:
        reason = refused_before(earlier, case, peer.name)
        if reason:
            entries[peer.name] = {"status": "unsupported", "reason": reason}
            continue
        layer = attempt(peer, case, data, device, wanted, entries)
        if layer is not None:
            layers[peer.name] = layer
            stack.callback(layer.close)
    return layers


def _bury(peers: List[Peer], entries: Dict[str, Row]) -> None:
    """Write down who was not measured any more."""
    for peer in peers:
        entry = entries.get(peer.name, {"status": "ok"})
        if entry["status"] == "ok" and "seconds" not in entry:
            reason = "the GPU's context was gone before its turn"
            entries[peer.name] = {"status": "failed", "reason": reason}


def failures(
    peers: List[Peer], entries: Mapping[str, Row], device: str, task: str = "layer"
) -> List[str]:
    """What is wrong with the mandatory ones: of a group all are, or one has another result."""
    found = []
    for group, members in mandatory_groups(peers, device, task).items():
        of_group = {name: entries[name] for name in members}
        if not any(entry["status"] == "ok" for entry in of_group.values()):
            reasons = [f"{n}: {e['status']}: {e['reason']}" for n, e in of_group.items()]
            found.append(reasons[0] if len(members) == 1 else f"{group}: {'; '.join(reasons)}")
    return found


def refused_before(earlier: Sequence[Row], case: Case, name: str) -> Optional[str]:
    """Why not to ask a peer: it refused the same layer at the least width of the grid, or None.

    What an algorithm says of H is a most, or that H be a multiple of something, and the least width
    is 128. So what is refused there is refused for another reason, which every H has.
    """
    least = min(HIDDEN)
    if case.hidden == least or case.task != "layer":
        return None
    inputs = least if case.inputs == case.hidden else case.inputs
    sizes = asdict(replace(case, hidden=least, inputs=inputs))
    for row in earlier:
        entry = row["peers"].get(name, {}) if row["sizes"] == sizes else {}
        if entry.get("status") == "unsupported":
            return f"refused at H={least}: {entry['reason']}"
    return None


def _input_sets(case: Case, device: str) -> int:
    if case.task != "layer":
        return 1
    if device == "cpu":
        return 2
    import torch

    cache = limits.cache_bytes(device)
    # Everyone has sets of their own, and there are a dozen.
    most = torch.cuda.mem_get_info()[0] // 64
    return timing.input_sets(limits.set_bytes(case), cache, most)


def reference(case: Case, data: Data, device: str) -> Results:
    """Results in float64: PyTorch's where it is, which are there sooner, or else the oracle's."""
    if find_spec("torch") is None:
        return bench_data.expected(case, data)
    from bench.peers.pytorch import PytorchLayer

    first = data._replace(xs=data.xs[:1], d_outputs=data.d_outputs[:1])
    layer = PytorchLayer(case, first, device, "float64")
    layer.run(0)
    return layer.results()


def _fail(entries: Dict[str, Row], name: str, error: Exception, device: str) -> None:
    """Make an entry of an error; where it came from is printed.

    Raises
    ------
    DeadDeviceError
        If the GPU does not work any more.
    """
    entries[name] = {"status": "failed", "reason": one_line(error)}
    traceback.print_exception(type(error), error, error.__traceback__, file=sys.stderr)
    if device == "cuda":
        import torch

        try:
            torch.cuda.synchronize()
        except RuntimeError as second:
            message = f"{one_line(error)}; the GPU then says {one_line(second)}"
            raise DeadDeviceError(message) from error


def _build(peer: Peer, case: Case, data: Any, device: str) -> Layer:
    if case.task == "layer":
        return peer.build(case, data, device)
    model = language_model.build(peer.name, case, data, device)
    if model is None:
        raise NotImplementedError("its layer is in no language model here")
    return model


def attempt(
    peer: Peer,
    case: Case,
    data: Any,
    device: str,
    wanted: Results,
    entries: Dict[str, Row],
) -> Optional[Layer]:
    """Add a peer's entry, and return its layer if that may be timed."""
    reason = peer.supports(case, device)
    if reason:
        entries[peer.name] = {"status": "unsupported", "reason": reason}
        return None
    with ExitStack() as stack:
        try:
            layer = _build(peer, case, data, device)
            stack.callback(layer.close)
            layer.run(0)
            wrong = bench_data.difference(case, layer.results(), wanted)
            if wrong:
                entries[peer.name] = {"status": "wrong", "reason": wrong}
                return None
            entry: Row = {"status": "ok", **layer.facts()}
            if device == "cuda":
                entry.update(_peak(peer, case, data))
        except NotImplementedError as error:
            entries[peer.name] = {"status": "unsupported", "reason": str(error)}
            return None
        except Exception as error:
            try:
                _fail(entries, peer.name, error, device)
            except DeadDeviceError:
                stack.pop_all()
                raise
            return None
        stack.pop_all()
    entries[peer.name] = entry
    return layer


def _peak(peer: Peer, case: Case, data: Any) -> Row:
    """Of a second layer: the first one's build also loaded what a library loads once."""
    if case.task == "layer":
        data = data._replace(xs=data.xs[:1], d_outputs=data.d_outputs[:1])
    before = gpu_memory.start()
    layer = _build(peer, case, data, "cuda")
    try:
        layer.run(0)
        return gpu_memory.peak(before, peer.in_pool)
    finally:
        layer.close()


def _time(
    layers: Mapping[str, Layer], entries: Dict[str, Row], sets: int, budget: float, device: str
) -> None:
    """Add the times of calls to the entries; who fails has an entry that says so instead."""
    calls = {name: layer.run for name, layer in layers.items()}
    if device == "cpu":
        timed = timing.time_calls(calls, sets, budget)
    else:
        timed = timing.time_on_gpu(calls, sets, budget * (1 - GRAPHS_SHARE), _event)
    for name, times in timed.times.items():
        entries[name].update(_entry("", times))
    for name, error in timed.failures.items():
        _fail(entries, name, error, device)


def _replay(
    case: Case,
    layers: Mapping[str, Layer],
    entries: Dict[str, Row],
    wanted: Results,
    sets: int,
    budget: float,
) -> None:
    """Add the times of replayed graphs: one peer's after the other's, which are then deleted."""
    import torch

    share = budget * GRAPHS_SHARE / max(1, len(layers))
    for name, layer in layers.items():
        entry = entries[name]
        if entry["status"] != "ok":
            continue
        if layer.uncapturable:
            entry["graph_reason"] = layer.uncapturable
            continue
        free = torch.cuda.mem_get_info()[0]
        count = graphs.count_that_fits(sets, entry.get("peak_mib", 0.0) * 2**20, free)
        try:
            graph = graphs.capture(torch, layer.run, count)
            if graph.call is None:
                entry["graph_reason"] = graph.reason
                continue
            try:
                # The last one's results are those of another set, so these are of this replay.
                for number in reversed(range(count)):
                    graph.call(number)
                wrong = bench_data.difference(case, layer.results(), wanted)
                if wrong:
                    entries[name] = {"status": "wrong", "reason": f"a replayed graph: {wrong}"}
                    continue
                timed = timing.time_on_gpu({name: graph.call}, count, share, _event)
            finally:
                graph.delete()
            for error in timed.failures.values():
                raise error
            entry.update(_entry("graph_", timed.times[name]), graphs=count)
        except Exception as error:
            _fail(entries, name, error, "cuda")


def _event() -> Any:
    import torch

    return torch.cuda.Event(enable_timing=True)


def _entry(prefix: str, times: timing.Times) -> Row:
    return {
        f"{prefix}seconds": times.median,
        f"{prefix}low": times.low,
        f"{prefix}high": times.high,
        f"{prefix}rounds": times.rounds,
    }
