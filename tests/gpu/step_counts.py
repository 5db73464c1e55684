"""Counts what a warp executes in a step of each persistent kernel, for the cost model.

    python tests/gpu/step_counts.py [CUBIN...]    write csrc/cuda/step_counts.inc

Without files, it compiles all cells for sm_90. `make objects` compares the table with what nvcc
makes now (`differences`). It has float16's kernels for both types of 16 bits.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from machine_code import Kernel, kernels, read, readable
from nvcc import ROOT, compile_cell
from step_path import GATES, StepPath, latency

ARCHITECTURE = "90"
CELLS = ("lstm", "gru", "rnn")
TABLE = ROOT / "csrc" / "cuda" / "step_counts.inc"
HEAD = "// Written by tests/gpu/step_counts.py from machine code for sm_90; see step_counts.h.\n"
# How far counts may be from the table: another release of nvcc is no reason to write a new one.
SHARE, LEAST = 0.1, 20

MATHS = ("Half", "Tf32", "Float")
REDUCTIONS = ("kNone", "kThroughL2", "kInCluster", "kScatter")


class Key(NamedTuple):
    """A row of the table, in its order."""

    of_pass: str
    gates: int
    row_tiles: int
    batch_tiles: int
    reduction: str
    streams: bool
    signal: str

    def __str__(self) -> str:
        return (
            f"Pass::k{self.of_pass}, {self.gates}, {self.row_tiles}, {self.batch_tiles}, "
            f"Reduction::{self.reduction}, {str(self.streams).lower()}, Signal::k{self.signal}"
        )


class Counts(NamedTuple):
    """Instructions and latency of a step with one part, and of each further part."""

    instructions: int = 0
    latency: int = 0
    part_instructions: int = 0
    part_latency: int = 0

    def __str__(self) -> str:
        return "{" + ", ".join(map(str, self)) + "}"

    def is_near(self, other: Counts) -> bool:
        """Whether no number differs by more than another compiler may make of it."""
        return all(abs(a - b) <= max(SHARE * b, LEAST) for a, b in zip(self, other))


Table = Dict[Key, List[Counts]]


def place(kernel: Kernel) -> Optional[Tuple[Key, int]]:
    """Return the row and column of a kernel; None if the table does not have it."""
    words = readable(kernel.name).split()
    if len(words) == 1 or words[2] not in MATHS:
        return None
    gates, column = GATES[words[1]], MATHS.index(words[2])
    signal = "Tags" if words[-1] == "tagged" else "Flags"
    if words[0] == "Scatter":
        return Key("Backward", gates, 1, int(words[3]), "kScatter", False, signal), column
    tiles = int(words[3]), int(words[4])
    if words[0] == "Forward":
        return Key("Forward", gates, *tiles, "kNone", words[5] == "1", signal), column
    reduction = REDUCTIONS[int(words[5])]
    return Key("Backward", gates, *tiles, reduction, words[6] == "1", signal), column


def count(kernel: Kernel) -> Counts:
    """Count a kernel's step."""
    at_once = StepPath(kernel, 1).slices_at_once
    one, more = (StepPath(kernel, parts).find() for parts in (1, 1 + at_once))
    first = len(one), latency(one)
    added = len(more) - first[0], latency(more) - first[1]
    return Counts(*first, *(round(number / at_once) for number in added))


def counted(found: Iterable[Kernel]) -> Iterator[Tuple[Kernel, Key, int, Counts]]:
    """Yield the kernels that the table has, with their places and counts."""
    for kernel in found:
        where = place(kernel)
        # Kernels for newer GPUs are empty.
        if where is not None and kernel.step_loop():
            yield (kernel, *where, count(kernel))


def written(table: Table) -> str:
    """Return the table as it is committed."""
    rows = [
        f"{{{key},\n {{{', '.join(map(str, table[key]))}}}}},\n"
        for key in sorted(table, key=lambda key: (-key.gates, *key))
    ]
    return HEAD + "".join(rows)


def committed(text: str) -> Table:
    """Return the table that `written` has made.

    Raises
    ------
    ValueError
        If the text has another form.
    """
    found: Table = {}
    for line, numbers in re.findall(r"^\{(Pass.*),\n \{(.*)\}\},$", text, re.MULTILINE):
        of_pass, gates, rows, columns, reduction, streams, signal = line.split(", ")
        key = Key(
            of_pass[len("Pass::k") :],
            int(gates),
            int(rows),
            int(columns),
            reduction[len("Reduction::") :],
            streams == "true",
            signal[len("Signal::k") :],
        )
        parts = re.findall(r"\{([\d, ]+)\}", numbers)
        found[key] = [Counts(*map(int, part.split(", "))) for part in parts]
    if written(found) != text:
        raise ValueError(f"{TABLE.name} is not what step_counts.py writes")
    return found


def differences(found: Iterable[Kernel]) -> Iterator[str]:
    """Yield a complaint for each kernel whose counts are far from those of the table."""
    table = committed(TABLE.read_text())
    for kernel, key, column, now in counted(found):
        then = table[key][column] if key in table else Counts()
        if not now.is_near(then):
            yield (
                f"{readable(kernel.name)}: a step's counts are {now}, and {then} in {TABLE.name}: "
                "run tests/gpu/step_counts.py"
            )


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cubins", nargs="*", type=Path, metavar="CUBIN")
    cubins = parser.parse_args(arguments).cubins
    table: Table = {}
    with tempfile.TemporaryDirectory() as folder:
        if not cubins:
            cubins = [Path(folder, f"{cell}.cubin") for cell in CELLS]
            for cell, cubin in zip(CELLS, cubins):
                compile_cell(cell, ARCHITECTURE, cubin)
        for cubin in cubins:
            for _, key, column, counts in counted(kernels(read(cubin))):
                table.setdefault(key, [Counts()] * len(MATHS))[column] = counts
    TABLE.write_text(written(table))
    return 0


if __name__ == "__main__":
    sys.exit(main())
