"""Compiles the kernels with this machine's nvcc, and reads what it says of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Iterator, NamedTuple, Optional, Sequence

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "build_backend"))

from fastrnn_build.detect import Missing, find_nvcc

SOURCES = sorted(ROOT.glob("csrc/cuda/**/*.cu"))
FLAGS = ["-std=c++17", "-O3", "-DNDEBUG", f"-I{ROOT / 'csrc'}"]


class Resources(NamedTuple):
    """What ptxas says of one kernel; all but the registers in bytes."""

    kernel: str
    architecture: str
    stack: int
    stores: int
    loads: int
    registers: int

    def complaint(self) -> Optional[str]:
        """Return what is wrong, if anything."""
        if not (self.stack or self.stores or self.loads):
            return None
        return (
            f"{self.kernel} for {self.architecture}: {self.stack} bytes of stack frame, "
            f"{self.stores} of spill stores, {self.loads} of spill loads"
        )


def parse_resources(report: str) -> Iterator[Resources]:
    """Yield what `ptxas -v` printed of each kernel.

    Raises
    ------
    ValueError
        If what it says of a kernel is not of the form that is known.
    """
    for part in re.split(r"(?=Compiling entry function)", report)[1:]:
        head = re.match(r"Compiling entry function '(\w+)' for '(\w+)'", part)
        frame = re.search(
            r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part
        )
        registers = re.search(r"Used (\d+) registers", part)
        if not (head and frame and registers):
            raise ValueError(f"ptxas says something unknown: {part!r}")
        numbers = [int(number) for number in (*frame.groups(), registers.group(1))]
        yield Resources(head.group(1), head.group(2), *numbers)


def compiled(command: Sequence[object]) -> str:
    """Run a compiler and return what it printed; stop if it fails."""
    words = [str(word) for word in command]
    result = subprocess.run(
        words, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if result.returncode != 0:
        sys.exit(f"{' '.join(words)}\n{result.stdout}")
    return result.stdout


def compile_cell(cell: str, architecture: str, cubin: Path) -> str:
    """Compile a cell's persistent kernels, and return what ptxas says of them."""
    nvcc = find_nvcc(os.environ)
    if isinstance(nvcc, Missing):
        sys.exit(nvcc.reason)
    (source,) = (s for s in SOURCES if s.name == f"persistent_{cell}.cu")
    flags = [*FLAGS, "-cubin", f"-arch=sm_{architecture}", "-Xptxas=-v"]
    return compiled([nvcc.path, *flags, "-o", cubin, source])
