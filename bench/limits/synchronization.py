"""How long blocks of a persistent kernel take to hand each other their parts of a step.

    python -m bench.limits.synchronization [--out FILE]

Prints a table in Markdown of the ways that synchronization.cu has, for several numbers of blocks
and bytes. The fastest of them without data worth naming is the exchange of the benchmarks' limits.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

# As synchronization.cu numbers them.
VARIANTS = (
    "a flag a block",
    "flags 32 bytes apart",
    "one counter",
    "grid.sync()",
    "tagged words, no signal",
)
STEPS = 2000
WARM_UP_SECONDS = 0.5
PROCESS_SECONDS = 120.0  # by when a process of fastest_in_process has to end
ROUNDS = 5
BLOCKS = (4, 16, 32, 64)  # and one on each multiprocessor
WORD = 4  # bytes of data in each of the words, which are 8
# What all blocks exchange in a step: nothing to speak of; h of H = 768, N = 16 in 16 bits, and that
# of H = 1000, N = 32 in float32.
BYTES = (0, 24 << 10, 125 << 10)
LEAST_WORDS = 2  # of a block


class MissingExchangeError(Exception):
    """The exchange could not be measured here."""


class Row(NamedTuple):
    """Seconds of a step, in the order of VARIANTS."""

    blocks: int
    exchanged: int  # bytes
    seconds: List[float]


def build(folder: Path, architecture: str) -> Path:
    """Compile synchronization.cu for ``90`` or the like; the path of the library.

    Raises
    ------
    MissingExchangeError
        Without an nvcc that does.
    """
    from fastrnn_build import detect  # where the package's build looks for nvcc, too

    nvcc = detect.find_nvcc(os.environ)
    if isinstance(nvcc, detect.Missing):
        raise MissingExchangeError(nvcc.reason)
    source, library = Path(__file__).with_suffix(".cu"), folder / "libsynchronization.so"
    command = [str(nvcc.path), "-std=c++17", "-O3", f"-arch=sm_{architecture}", "-shared"]
    command += ["-Xcompiler", "-fPIC", "-o", str(library), str(source)]
    built = subprocess.run(
        command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if built.returncode != 0:
        said = (built.stdout.strip().splitlines() or [f"exit status {built.returncode}"])[0]
        raise MissingExchangeError(f"{nvcc.path} does not build bench/limits/{source.name}: {said}")
    return library


def sum_of(blocks: int, words: int, steps: int) -> int:
    """What each block should have read, in sum, modulo 2**32."""
    of_steps = steps * (steps + 1) // 2 * blocks * words
    of_blocks = 3 * (blocks * (blocks - 1) // 2) * steps * words
    of_words = 5 * (words * (words - 1) // 2) * steps * blocks
    return (of_steps + of_blocks + of_words) % 2**32


def words_of(exchanged: int, blocks: int) -> int:
    """Words of a block's part, an even number."""
    return max(LEAST_WORDS, 2 * round(exchanged / WORD / blocks / 2))


class Exchanges:
    """The library, on PyTorch's current device and stream."""

    def __init__(self, torch: Any):
        self._torch = torch
        major, minor = torch.cuda.get_device_capability()
        self.multiprocessors = torch.cuda.get_device_properties(0).multi_processor_count
        with tempfile.TemporaryDirectory() as folder:
            library = ctypes.CDLL(str(build(Path(folder), f"{major}{minor}")))
        self._function = library.BenchSynchronization
        pointer = ctypes.c_void_p
        self._function.argtypes = [
            *(ctypes.c_int, pointer, pointer, pointer, ctypes.c_int, ctypes.c_int),
            *(ctypes.c_uint, pointer),
        ]

    @property
    def counts(self) -> List[int]:
        """Numbers of blocks to ask about."""
        return [*(b for b in BLOCKS if b < self.multiprocessors), self.multiprocessors]

    def once(self, variant: int, blocks: int, words: int, steps: int = STEPS) -> float:
        """Seconds of a step.

        Raises
        ------
        MissingExchangeError
            If CUDA fails, or a block has not read what was written.
        """
        torch = self._torch

        def zeros(count: int) -> Any:
            return torch.zeros(count, dtype=torch.int32, device="cuda")

        flags, parts, sums = zeros(8 * blocks), zeros(4 * blocks * words), zeros(blocks)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        arrays = (flags.data_ptr(), parts.data_ptr(), sums.data_ptr())
        stream = torch.cuda.current_stream().cuda_stream
        begin.record()
        status = self._function(variant, *arrays, blocks, words, steps, stream)
        end.record()
        end.synchronize()
        if status != 0:
            raise MissingExchangeError(f"{VARIANTS[variant]}: CUDA's error {status}")
        wanted = sum_of(blocks, words, steps)
        if any(int(found) % 2**32 != wanted for found in sums.tolist()):
            raise MissingExchangeError(f"{VARIANTS[variant]}: blocks have read something else")
        return float(begin.elapsed_time(end)) / 1e3 / steps

    def best(self, variant: int, blocks: int, words: int) -> float:
        """The least of some rounds, the first of which is not counted."""
        return min([self.once(variant, blocks, words) for _ in range(ROUNDS + 1)][1:])

    def warm_up(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Have the GPU's clock rise, and every kernel loaded."""
        begun = clock()
        while clock() - begun < WARM_UP_SECONDS:
            for variant in range(len(VARIANTS)):
                self.once(variant, self.multiprocessors, LEAST_WORDS)

    def fastest(self) -> Dict[int, float]:
        """Seconds of a step without data to speak of, by the number of blocks."""
        self.warm_up()
        return {
            blocks: min(self.best(v, blocks, LEAST_WORDS) for v in range(len(VARIANTS)))
            for blocks in self.counts
        }

    def rows(self) -> List[Row]:
        """Everything that is compared."""
        self.warm_up()
        cells = [(blocks, exchanged) for exchanged in BYTES for blocks in self.counts]
        return [
            Row(b, e, [self.best(v, b, words_of(e, b)) for v in range(len(VARIANTS))])
            for b, e in cells
        ]


def fastest_in_process() -> Dict[int, float]:
    """As `Exchanges.fastest`, of a process of its own: blocks that wait for ever end with it.

    Raises
    ------
    MissingExchangeError
        With what it said last, if it failed or took too long.
    """
    command = [sys.executable, __file__, "--fastest"]
    try:
        found = subprocess.run(
            command,
            check=False,
            timeout=PROCESS_SECONDS,
            capture_output=True,
            text=True,
        )
    except subprocess.TimeoutExpired as error:
        raise MissingExchangeError(f"not done after {PROCESS_SECONDS:g} seconds") from error
    if found.returncode != 0:
        said = (found.stderr.strip().splitlines() or [f"exit status {found.returncode}"])[-1]
        raise MissingExchangeError(said)
    return {int(blocks): seconds for blocks, seconds in json.loads(found.stdout).items()}


def table(rows: Sequence[Row]) -> List[str]:
    """Markdown, in microseconds; the fastest of a row is bold."""
    lines = ["| blocks | exchanged | " + " | ".join(VARIANTS) + " |"]
    lines.append("|---:|---:|" + "---:|" * len(VARIANTS))
    for row in rows:
        least = min(row.seconds)
        cells = [f"{1e6 * s:.2f}" for s in row.seconds]
        cells = [f"**{c}**" if s == least else c for c, s in zip(cells, row.seconds)]
        lines.append(f"| {row.blocks} | {row.exchanged >> 10} KiB | " + " | ".join(cells) + " |")
    return lines


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Measure and print; 2, with one line, where that cannot be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the table there as well")
    parser.add_argument(
        "--fastest", action="store_true", help="print, as JSON, what the limits are made of instead"
    )
    given = parser.parse_args(arguments)
    root = Path(__file__).resolve().parents[2]
    sys.path += [str(root), str(root / "build_backend")]
    import torch

    try:
        exchanges = Exchanges(torch)
        if given.fastest:
            print(json.dumps(exchanges.fastest()))
            return 0
        rows = exchanges.rows()
    except MissingExchangeError as error:
        print(f"synchronization: {error}", file=sys.stderr)
        return 2
    from bench import machine

    device, commit = torch.cuda.get_device_name(), machine.commit()
    text = "\n".join([f"µs a step, {device}, commit {commit}", "", *table(rows)]) + "\n"
    print(text)
    if given.out is not None:
        from bench.results import write_whole

        write_whole(given.out, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
