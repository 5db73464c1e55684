"""Trains a layer for a few steps and prints the process's peak resident memory as JSON.

python memory.py nothing|fastrnn|mxnet CELL
"""

from __future__ import annotations

import json
import resource
import sys

import cases

import fastrnn

if __name__ == "__main__":
    name, cell = sys.argv[1:]
    case = cases.Case(cell)
    if name != "nothing":
        call = case.call(fastrnn if name == "fastrnn" else cases.mx.gluon.rnn)
        for _ in range(3):
            call()
    print(json.dumps({"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
