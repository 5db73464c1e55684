"""One row: build everyone's layer, check the results, and time those that are right.

Whatever goes wrong with one who takes part is written into the row; the others are measured all the
same. Only a GPU whose context an error has destroyed ends the row, and all rows after it.
"""

from __future__ import annotations

import sys
import traceback
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from typing import Any, Dict, List, Mapping, Optional, Tuple

from bench import data as bench_data
from bench import language_model
from bench.calls import memory, timing
from bench.calls.graphs import CaptureError, captured, one_line
from bench.calls.process import busy_core
from bench.cases import Case
from bench.data import Data, Results
from bench.limits import roofline
from bench.limits.roofline import Peaks
from bench.peers import Layer, Peer, mandatory_groups

# Of a layer. Each has a CUDA graph of its own, so there are few; evictions make them cold.
INPUT_SETS = 2
GRAPHS_SHARE = 0.4  # of the time for a row, on a GPU

Row = Dict[str, Any]


class DeadDeviceError(Exception):
    """An error has destroyed the GPU's context, and with it every layer of this process."""


def frame(case: Case, device: str, peaks: Mapping[str, Peaks]) -> Row:
    """A row before anyone is in it."""
    sets = INPUT_SETS if case.task == "layer" else 1
    # Text is written by a loop of one small model, whose weights stay in a GPU's cache. Before all
    # other calls on a GPU that is evicted.
    warm = device == "cpu" or case.task == "lm generation"
    of_case = peaks["tf32" if case.tf32 else case.dtype]
    facts = roofline.device_facts() if device == "cuda" else None
    row: Row = {
        "case": case.name,
        "sizes": asdict(case),
        **roofline.limits_of(case, of_case, sets if warm else None, facts),
        "input_sets": sets,
    }
    if device == "cuda" and warm:
        row["warm"] = True
    elif device == "cuda":
        row["evicted"] = timing.EVICTED_CACHES * roofline.cache_bytes(device)
    return {**row, "peers": {}}


def measure(
    row: Row,
    case: Case,
    device: str,
    peers: List[Peer],
    missing: Mapping[str, str],
    budget: float,
) -> None:
    """Add everyone to a row.

    ``failures`` says what of the mandatory ones went wrong, and ``dead``, where it is there, why no
    further row can be measured by this process.

    Parameters
    ----------
    row
        A `frame`.
    peers, missing
        Those that are installed, and why the others are not.
    budget
        Seconds to spend on timing.
    """
    entries = row["peers"]
    entries.update({n: {"status": "missing", "reason": why} for n, why in missing.items()})
    reason = ""
    with ExitStack() as stack:
        measurement = _Measurement(case, device, row)
        try:
            measurement.run(peers, budget, stack)
        except Exception as error:  # of the reference, or of what calls are timed with
            traceback.print_exc()
            reason = f"nothing can be measured: {one_line(error)}"
            row.update(measurement.death(error))
            if "dead" in row:
                stack.pop_all()  # nothing can be given back any more
                reason = "the GPU's context was gone before its turn"
    for peer in peers:
        entry = entries.setdefault(peer.name, {"status": "ok"})
        if entry["status"] == "ok" and "seconds" not in entry:
            entries[peer.name] = {"status": "failed", "reason": reason}
        elif entry["status"] == "ok" and device == "cpu":
            entry.update(memory.cpu_peak(peer.name, case))
    row["failures"] = failures(peers, entries, device, case.task)
    if "dead" in row:
        row["failures"].append(f"the GPU: {row['dead']}")


def failures(
    peers: List[Peer], entries: Mapping[str, Row], device: str, task: str = "layer"
) -> List[str]:
    """What is wrong with the mandatory ones: of a group, that no member has a time."""
    found = []
    for group, members in mandatory_groups(peers, device, task).items():
        of_group = {name: entries[name] for name in members}
        if not any(entry["status"] == "ok" for entry in of_group.values()):
            reasons = [f"{n}: {e['status']}: {e['reason']}" for n, e in of_group.items()]
            found.append(reasons[0] if len(members) == 1 else f"{group}: {'; '.join(reasons)}")
    return found


def reference(case: Case, data: Data, device: str) -> Results:
    """Results in float64: PyTorch's where it is, which are there sooner, or else the oracle's."""
    if find_spec("torch") is None:
        return bench_data.expected(case, data)
    from bench.peers.pytorch import PytorchLayer

    first = data._replace(xs=data.xs[:1], d_outputs=data.d_outputs[:1])
    layer = PytorchLayer(case, first, device, "float64")
    layer.run(0)
    return layer.results()


class _Measurement:
    """The entries of a row's peers, one step after the other."""

    def __init__(self, case: Case, device: str, row: Row):
        self.case, self.device = case, device
        self.entries, self.sets, self.evicted = row["peers"], row["input_sets"], row.get("evicted")

    def run(self, peers: List[Peer], budget: float, stack: ExitStack) -> None:
        """Check and time everyone; the stack closes their layers."""
        data, self.wanted = self._data()
        layers: Dict[str, Layer] = {}
        for peer in peers:
            layer = self._checked(peer, data)
            if layer is not None:
                layers[peer.name] = layer
                stack.callback(layer.close)
        calls: Dict[str, timing.Call] = {name: layer.run for name, layer in layers.items()}
        if self.device == "cpu":
            with busy_core(self.case.neighbour):
                self._enter(timing.time_calls(calls, self.sets, budget))
            return
        gpu = self._gpu()  # all peaks of memory are measured, so its evictions are in none
        shares = budget * (1 - GRAPHS_SHARE), budget * GRAPHS_SHARE / max(1, len(layers))
        self._enter(timing.time_on_gpu(calls, self.sets, shares[0], gpu))
        for name, layer in layers.items():
            if self.entries[name]["status"] == "ok":
                self._replay(name, layer, shares[1], gpu)

    def _data(self) -> Tuple[Any, Results]:
        """Weights and inputs, and the results of the first input set in float64."""
        if self.case.task != "layer":
            text = language_model.draw(self.case)
            return text, language_model.expected(self.case, text)
        data = bench_data.draw(self.case, self.sets)
        return data, reference(self.case, data, self.device)

    def _checked(self, peer: Peer, data: Any) -> Optional[Layer]:
        """Add a peer's entry, and return its layer if that may be timed."""
        refusal = peer.supports(self.case, self.device)
        if refusal:
            self.entries[peer.name] = {"status": "unsupported", "reason": refusal}
            return None
        unproven = peer.unproven(self.case, self.device)
        if unproven:
            self.entries[peer.name] = {"status": "failed", "reason": unproven}
            return None
        stack = ExitStack()
        try:
            layer = self._build(peer, data)
            stack.callback(layer.close)
            layer.run(0)
            entry = self._verdict("", layer) or {"status": "ok", **layer.facts()}
            if entry["status"] == "ok" and self.device == "cuda":
                # Of a second layer: the first one's build also loaded what a library loads once.
                build = partial(self._build, peer, _first_set(data))
                entry.update(memory.gpu_peak(build, peer.in_pool))
            self.entries[peer.name] = entry
        except Exception as error:
            self._fail(peer.name, error)
        if self.entries[peer.name]["status"] == "ok":
            return layer
        stack.close()
        return None

    def _build(self, peer: Peer, data: Any) -> Layer:
        build = peer.build if self.case.task == "layer" else peer.build_model
        return build(self.case, data, self.device)

    def _verdict(self, what: str, layer: Layer) -> Optional[Row]:
        """An entry that says what is wrong with the results of the first input set, or None."""
        wrong = bench_data.difference(self.case, layer.results(), self.wanted)
        return {"status": "wrong", "reason": what + wrong} if wrong else None

    def _enter(self, timed: timing.Timed) -> None:
        for name, times in timed.times.items():
            self.entries[name].update(_keys("", times))
        for name, error in timed.failures.items():
            self._fail(name, error)

    def _replay(self, name: str, layer: Layer, budget: float, gpu: timing.Gpu) -> None:
        """Add the time of replayed graphs."""
        import torch

        entry = self.entries[name]
        if layer.uncapturable:
            entry["graph_reason"] = layer.uncapturable
            return
        try:
            with captured(torch, layer.run, self.sets) as replay:
                # The last one's results are those of another set, so these are of this replay.
                for number in reversed(range(self.sets)):
                    replay(number)
                wrong = self._verdict("a replayed graph: ", layer)
                if wrong:
                    self.entries[name] = wrong
                    return
                times, empty = timing.time_replays(replay, self.sets, budget, gpu)
            entry.update(_keys("graph_", times), graph_empty=empty, graphs=self.sets)
        except CaptureError as error:
            entry["graph_reason"] = str(error)
        except Exception as error:
            self._fail(name, error)

    def _gpu(self) -> timing.Gpu:
        """The current stream. Evictions read, as writes would leave the cache in a timed call."""
        import torch

        event = partial(torch.cuda.Event, enable_timing=True)
        if self.evicted is None:
            return timing.Gpu(event, None)
        others = torch.zeros(self.evicted // 4, dtype=torch.float32, device="cuda")
        return timing.Gpu(event, others.sum)

    def _fail(self, name: str, error: Exception) -> None:
        """Make an entry of an error."""
        if isinstance(error, NotImplementedError):
            self.entries[name] = {"status": "unsupported", "reason": str(error)}
            return
        self.entries[name] = {"status": "failed", "reason": one_line(error)}
        traceback.print_exception(type(error), error, error.__traceback__, file=sys.stderr)
        if self.death(error):
            raise DeadDeviceError from error

    def death(self, error: Exception) -> Row:
        """What a row says where the GPU does not work any more after an error; else nothing."""
        if self.device == "cuda":
            import torch

            try:
                torch.cuda.synchronize()
            except RuntimeError as second:
                first = error.__cause__ if isinstance(error, DeadDeviceError) else error
                return {"dead": f"{one_line(first or error)}; the GPU then says {one_line(second)}"}
        return {}


def _first_set(data: Any) -> Any:
    if isinstance(data, Data):
        return data._replace(xs=data.xs[:1], d_outputs=data.d_outputs[:1])
    return data


def _keys(prefix: str, times: timing.Times) -> Row:
    return {
        f"{prefix}seconds": times.median,
        f"{prefix}low": times.low,
        f"{prefix}high": times.high,
        f"{prefix}rounds": times.rounds,
    }
