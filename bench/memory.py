"""Trains a layer for a few steps and prints the process's peak resident memory as JSON.

python memory.py nothing|fastrnn|mxnet CELL
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cases

import fastrnn

if __name__ == "__main__":
    name, cell = sys.argv[1:]
    case = cases.Case(cell)
    if name != "nothing":
        call = case.call(fastrnn if name == "fastrnn" else cases.mx.gluon.rnn)
        for _ in range(3):
            call()
    # Not getrusage: its figure begins with that of the process that started this one.
    status = Path("/proc/self/status").read_text()
    peak_kib = int(status.split("VmHWM:")[1].split()[0])
    print(json.dumps({"peak_mib": peak_kib / 1024}))
