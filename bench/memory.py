"""Runs a layer twice and prints, as JSON, what of memory that takes at its peak.

    python memory.py PEER CASE

CASE is a JSON object of `cases.Case`. The figure is the process's largest resident memory in MiB
beyond that with libraries, weights and inputs in place.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Dict

sys.path.append(str(Path(__file__).resolve().parents[1]))
from bench import data, language_model
from bench.cases import Case
from bench.peers import Peer, all_peers

IMPORTED = {"fastrnn": ("fastrnn",), "MXNet": ("fastrnn",), "PyTorch": ("torch",)}
CLEAR = Path("/proc/self/clear_refs")


def of_process(peer: Peer, case: Case) -> Dict[str, Any]:
    """What a row says of it: ``peak_mib`` of a process of its own, or ``peak_reason`` without."""
    command = [sys.executable, __file__, peer.name, json.dumps(asdict(case))]
    found = subprocess.run(command, check=False, stdout=subprocess.PIPE)
    if found.returncode != 0:
        return {"peak_reason": f"its process ended with status {found.returncode}"}
    return json.loads(found.stdout)


def resident_mib(field: str) -> float:
    """``VmRSS`` or, its largest value so far, ``VmHWM`` of this process."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


def measure(name: str, case: Case) -> Dict[str, Any]:
    """Of this process."""
    for module in IMPORTED[name]:
        importlib.import_module(module)
    of_layer = case.task == "layer"
    values: Any = data.draw(case) if of_layer else language_model.draw(case)
    try:
        CLEAR.write_text("5")  # the largest value begins anew
    except OSError as error:  # some containers do not let a process
        return {"peak_reason": f"{CLEAR} cannot be written: {error.strerror}"}
    before = resident_mib("VmRSS")
    (peer,) = (p for p in all_peers("cpu") if p.name == name)
    if of_layer:
        layer = peer.build(case, values, "cpu")
    else:
        layer = language_model.build(name, case, values, "cpu")
    for _ in range(2):
        layer.run(0)
    return {"peak_mib": resident_mib("VmHWM") - before}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], Case(**json.loads(sys.argv[2])))))
