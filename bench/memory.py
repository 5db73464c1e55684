"""Runs a layer twice and prints what of memory that takes at its peak, in MiB.

    python memory.py PEER CASE

CASE is a JSON object of `cases.Case`. The figure is the process's largest resident memory beyond
that with libraries, weights and inputs in place.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
from bench import data
from bench.cases import Case
from bench.peers import Peer, all_peers

IMPORTED = {"fastrnn": ("fastrnn",), "MXNet": ("fastrnn",), "PyTorch": ("torch",)}


def of_process(peer: Peer, case: Case) -> float:
    """The figure of a process of its own."""
    command = [sys.executable, __file__, peer.name, json.dumps(asdict(case))]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def resident_mib(field: str) -> float:
    """``VmRSS`` or, its largest value so far, ``VmHWM`` of this process."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


def main() -> None:
    """Run it."""
    name, sizes = sys.argv[1:]
    case = Case(**json.loads(sizes))
    for module in IMPORTED[name]:
        importlib.import_module(module)
    values = data.draw(case)
    Path("/proc/self/clear_refs").write_text("5")  # the largest value begins anew
    before = resident_mib("VmRSS")
    (peer,) = (p for p in all_peers("cpu") if p.name == name)
    layer = peer.build(case, values, "cpu")
    for _ in range(2):
        layer.run(0)
    print(resident_mib("VmHWM") - before)


if __name__ == "__main__":
    main()
