"""One row: build everyone's layer, check the results, time who is right.

Whatever goes wrong with one who takes part is written into the row; the others are measured all the
same. Only a GPU whose context an error has destroyed ends the row, and all rows after it.
"""

from __future__ import annotations

import sys
import traceback
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from importlib.util import find_spec
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from bench import data as bench_data
from bench import gpu_memory, graphs, language_model, limits, timing
from bench.budget import BUDGET
from bench.cases import HIDDEN, Case
from bench.data import Data, Results
from bench.floors import facts_of, limits_of
from bench.graphs import one_line
from bench.limits import Peaks
from bench.peers import Layer, Peer, mandatory_groups

# Of a layer. What captures calls that come again keeps few of them, so there are no more; on a GPU
# evictions make them cold.
INPUT_SETS = 2
GRAPHS_SHARE = 0.4  # of the time for a row, on a GPU

Row = Dict[str, Any]
Memory = Callable[[Peer, Case], Row]


class DeadDeviceError(Exception):
    """An error has destroyed the GPU's context, and with it every layer of this process."""


class NoReferenceError(Exception):
    """What results are compared with could not be computed."""


class CannotTimeError(Exception):
    """What calls are timed with could not be made."""


def frame(case: Case, device: str, peaks: Mapping[str, Peaks]) -> Row:
    """A row before anyone is in it."""
    sets = INPUT_SETS if case.task == "layer" else 1
    # Text is written by a loop of one small model, whose weights stay in a GPU's cache. Before all
    # other calls on a GPU that is evicted.
    warm = device == "cpu" or case.task == "lm generation"
    rotated = sets if warm else None
    of_case = peaks["tf32" if case.tf32 else case.dtype]
    row: Row = {
        "case": case.name,
        "sizes": asdict(case),
        **limits_of(case, of_case, rotated, facts_of(device)),
        "input_sets": sets,
    }
    if device == "cuda" and warm:
        row["warm"] = True
    elif device == "cuda":
        row["evicted"] = timing.eviction_bytes(limits.cache_bytes(device))
    return {**row, "peers": {}}


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
    with ExitStack() as stack:
        try:
            data, wanted = _expected(case, device, sets)
            layers = _layers(case, device, peers, data, wanted, entries, earlier, stack)
            # All peaks are measured by now, so that what this allocates is in none of them.
            gpu = None if device == "cpu" else _gpu(row.get("evicted"))
            _time(layers, entries, sets, budget, gpu)
            if gpu is not None:
                _replay(case, layers, entries, wanted, sets, budget, gpu)
        except DeadDeviceError as error:
            row["dead"] = str(error)
            stack.pop_all()  # nothing can be given back any more
            _bury(peers, entries, "the GPU's context was gone before its turn")
        except NoReferenceError as error:
            _bury(peers, entries, f"there is no reference: {error}")
        except CannotTimeError as error:
            _bury(peers, entries, f"it cannot be timed: {error}")
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


def _bury(peers: List[Peer], entries: Dict[str, Row], reason: str) -> None:
    """Write down who was not measured, or not any more."""
    for peer in peers:
        entry = entries.get(peer.name, {"status": "ok"})
        if entry["status"] == "ok" and "seconds" not in entry:
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


def _expected(case: Case, device: str, sets: int) -> Tuple[Any, Results]:
    """Weights and inputs of a case, and its results in float64.

    Raises
    ------
    NoReferenceError
        If these cannot be computed.
    DeadDeviceError
        If the GPU does not work any more.
    """
    try:
        if case.task != "layer":
            text = language_model.draw(case)
            return text, language_model.expected(case, text)
        data = bench_data.draw(case, sets)
        return data, reference(case, data, device)
    except Exception as error:
        _print(error, device)
        raise NoReferenceError(one_line(error)) from error


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
    _print(error, device)


def _print(error: Exception, device: str) -> None:
    """Print where an error came from.

    Raises
    ------
    DeadDeviceError
        If the GPU does not work any more.
    """
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
    layers: Mapping[str, Layer],
    entries: Dict[str, Row],
    sets: int,
    budget: float,
    gpu: Optional[timing.Gpu],
) -> None:
    """Add the times of calls to the entries; who fails has an entry that says so instead."""
    calls: Dict[str, timing.Call] = {name: layer.run for name, layer in layers.items()}
    failed: Dict[str, Exception] = {}
    if gpu is None:
        timed = timing.time_calls(calls, sets, budget)
    else:
        calls, failed = timing.warm_up(calls, sets, gpu)
        timed = timing.time_on_gpu(calls, sets, budget * (1 - GRAPHS_SHARE), gpu)
    for name, times in timed.times.items():
        entries[name].update(_entry("", times))
    for name, error in {**failed, **timed.failures}.items():
        _fail(entries, name, error, "cpu" if gpu is None else "cuda")


def _replay(
    case: Case,
    layers: Mapping[str, Layer],
    entries: Dict[str, Row],
    wanted: Results,
    sets: int,
    budget: float,
    gpu: timing.Gpu,
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
                found = timing.time_replays(graph.call, count, share, gpu)
            finally:
                graph.delete()
            entry.update(_entry("graph_", found.times), graph_empty=found.empty, graphs=count)
        except Exception as error:
            _fail(entries, name, error, "cuda")


def _gpu(evicted: Optional[int]) -> timing.Gpu:
    """The current stream of the GPU, with evictions of so many bytes, or none.

    They read: what they wrote would have to leave the cache while a call is timed.

    Raises
    ------
    CannotTimeError
        If there is no memory for them.
    DeadDeviceError
        If the GPU does not work any more.
    """
    import torch

    event = partial(torch.cuda.Event, enable_timing=True)
    if evicted is None:
        return timing.Gpu(event, None)
    try:
        others = torch.zeros(evicted // 4, dtype=torch.float32, device="cuda")
    except Exception as error:
        _print(error, "cuda")
        raise CannotTimeError(one_line(error)) from error
    return timing.Gpu(event, others.sum)


def _entry(prefix: str, times: timing.Times) -> Row:
    return {
        f"{prefix}seconds": times.median,
        f"{prefix}low": times.low,
        f"{prefix}high": times.high,
        f"{prefix}rounds": times.rounds,
    }
