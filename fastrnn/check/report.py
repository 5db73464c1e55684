"""What ``fastrnn check`` found, as a table, what failed, or JSON."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional

from fastrnn._version import __version__
from fastrnn.check.kinds import CPU, Device, Kind
from fastrnn.check.threads import Threads
from fastrnn.check.verdict import FAILED, PASSED, Time, Verdict

_HEADER = ("layer", "kernels", "inference", "training", "auto takes")


@dataclass
class Report:
    """What one check found.

    Attributes
    ----------
    verdict
        Of this check alone.
    kinds
        That were asked for.
    seconds
        That it took.
    threads
        On a CPU, what numbers of threads were measured.
    """

    verdict: Verdict
    kinds: List[Kind]
    seconds: float
    threads: Optional[Threads] = None

    @property
    def failed(self) -> bool:
        """Whether a class failed."""
        return any(self.verdict.result(kind)[0] == FAILED for kind in self.kinds)


def as_json(report: Report, device: Device, path: Optional[Path]) -> Dict[str, Any]:
    """Return a report as what JSON has."""
    verdict = report.verdict
    return {
        "device": device if device == CPU else f"gpu:{device}",
        "identity": verdict.identity,
        "date": verdict.date,
        "seconds": round(report.seconds, 1),
        "verdict": None if path is None else str(path),
        "layers": [_layer(verdict, kind, device) for kind in report.kinds],
        "rates": verdict.rates,
        "threads": None if report.threads is None else _threads(report.threads),
    }


def _threads(measured: Threads) -> Dict[str, Any]:
    return {"usual": measured.usual, "chosen": measured.chosen, "shares": measured.shares}


def _layer(verdict: Verdict, kind: Kind, device: Device) -> Dict[str, Any]:
    result, _ = verdict.result(kind)
    return {
        **kind._asdict(),
        "result": result,
        "classes": [
            {"name": name, "result": result, "details": details}
            for name, (result, details) in verdict.classes.get(str(kind), {}).items()
        ],
        "seconds": [time._asdict() for time in verdict.times.get(str(kind), [])],
    }


def lines(report: Report, device: Device, path: Optional[Path]) -> List[str]:
    """Return a report as lines of text."""
    verdict = report.verdict
    rows = [_HEADER, *(_row(verdict, kind, device) for kind in report.kinds)]
    widths = [max(len(row[k]) for row in rows) for k in range(len(_HEADER))]
    found = [
        f"{verdict.identity['device']}, library {verdict.identity['library'][:12]}, "
        f"{report.seconds:.0f} s",
        "",
        *("  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows),
        "",
        "inference, training: MXNet's time over the native operator's, by H; above 1 native is "
        "faster",
    ]
    if verdict.rates:
        rates = ", ".join(f"{name} {us:.2f}" for name, us in verdict.rates.items())
        found.append(f"measured for the cost model: {rates}")
    if report.threads is not None:
        found.append(_about_threads(report.threads))
    if path is not None:
        found.append(f"kept in {path}")
    return [*found, *_failures(report)]


def _row(verdict: Verdict, kind: Kind, device: Device) -> List[str]:
    classes = verdict.classes.get(str(kind), {})
    passed = sum(result == PASSED for result, _ in classes.values())
    result, _ = verdict.result(kind)
    times = verdict.times.get(str(kind), [])
    return [
        str(kind),
        f"{passed} of {len(classes)} {result}",
        _ratios([time for time in times if not time.backward]),
        _ratios([time for time in times if time.backward]),
        _taken(verdict, kind, device, times),
    ]


def _ratios(times: List[Time]) -> str:
    return ", ".join(f"{time.hidden}: {time.mxnet / time.native:.2f}" for time in times) or "-"


def _taken(verdict: Verdict, kind: Kind, device: Device, times: List[Time]) -> str:
    """What layers with `auto` run on, once this verdict is read."""
    if verdict.result(kind)[0] == FAILED:
        return "MXNet's"
    if device == CPU:
        return "native"  # where the kernels are not wrong
    hidden = sorted({time.hidden for time in times})
    native = [h for h in hidden if verdict.obstacle(kind, h) is None]
    if native and len(native) < len(hidden):
        return "native near H=" + ", ".join(map(str, native))
    return "native" if native else "MXNet's"


def _about_threads(measured: Threads) -> str:
    shares = ", ".join(f"{count}: {share:.2f}" for count, share in measured.shares.items())
    kept = f"layers take {measured.chosen}" if measured.chosen else "layers keep to that"
    return f"time by threads, {measured.usual} being fastrnn's choice: {shares}; {kept}"


def _failures(report: Report) -> List[str]:
    """What failed, and what to send us."""
    wrong = [
        f"  {name}: {details}"
        for kind in report.kinds
        for name, (result, details) in report.verdict.classes.get(str(kind), {}).items()
        if result == FAILED
    ]
    if not wrong:
        return []
    facts = {**report.verdict.identity, "fastrnn": __version__, "python": platform.python_version()}
    return [
        "",
        "These classes of kernels failed here, and layers do not use them. Please report it, with",
        "the lines from here on and what `fastrnn info` prints:",
        *wrong,
        f"  {json.dumps(facts)}",
    ]
