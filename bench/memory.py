"""Runs a layer three times and prints the process's peak resident memory in MiB.

    python memory.py PEER CASE [nothing]

CASE is a JSON object of `cases.Case`. With ``nothing`` the libraries are only imported.
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


def peak_mib() -> float:
    """Of this process. Not getrusage, whose figure begins with that of the parent."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def of_process(peer: Peer, case: Case) -> float:
    """Peak of a process that runs the case, beyond one that has the same data and imports."""
    sizes = json.dumps(asdict(case))

    def peak(*words: str) -> float:
        command = [sys.executable, __file__, peer.name, sizes, *words]
        return float(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)

    return peak() - peak("nothing")


def main() -> None:
    """Run it."""
    name, sizes, *nothing = sys.argv[1:]
    case = Case(**json.loads(sizes))
    for module in IMPORTED[name]:
        importlib.import_module(module)
    values = data.draw(case)
    if not nothing:
        (peer,) = (p for p in all_peers("cpu") if p.name == name)
        layer = peer.build(case, values, "cpu")
        for _ in range(3):
            layer.run(0)
    print(peak_mib())


if __name__ == "__main__":
    main()
