"""Runs the benchmarks' full grid on a machine with an NVIDIA GPU, in as many calls as it takes.

    python tests/gpu/gpu_bench.py OUT [--limit SECONDS] [--commit COMMIT]

The package is built as for gpu_check.py, once for each commit. OUT/results.json receives each row
when it is measured; a later call goes on with the others, on the same kind of GPU and the same
commit. Where OUT is emptied between calls, put the results.json that the call before left back into
it first. No row is begun after SECONDS, 540 by default. A call that has not ended GRACE seconds
later is ended, and its row has failed. The exit status is 0 when all rows are there, 75 when some
are left and nothing failed, 1 if something failed (rows may be left all the same), and 2, with one
line that says why, if there was no GPU or the build failed.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Mapping, Optional, Sequence

import gpu_check
from gpu_check import CannotCheckError

from bench import results

LIMIT = 540.0
GRACE = 50.0  # for the row that was begun before
STAMP = gpu_check.SITE.parent / "commit"  # what SITE was built of


def build(commit: str, variables: Mapping[str, str], log: Path) -> None:
    """Build the package, unless it is there.

    Raises
    ------
    CannotCheckError
        If that fails.
    """
    known = not commit.endswith("with changes")
    if known and STAMP.is_file() and STAMP.read_text(encoding="utf-8") == commit:
        return
    with open(log, "w", encoding="utf-8") as stream:
        outcome = gpu_check.run(gpu_check.build_step(), variables, stream, LIMIT)
    if outcome.result != "passed":
        raise CannotCheckError(f"the build failed, see {log}")
    STAMP.parent.mkdir(parents=True, exist_ok=True)
    STAMP.write_text(commit, encoding="utf-8")


def bench(out: Path, limit: float, commit: str) -> int:
    """Build, measure, and return the exit status."""
    begun = time.monotonic()
    gpu = gpu_check.find_gpu()
    commit = gpu_check.facts(gpu, commit)["commit"]
    out.mkdir(parents=True, exist_ok=True)
    variables = {**gpu_check.environment(gpu), "BENCH_COMMIT": commit}
    build(commit, variables, out / "build.log")
    left = max(0.0, limit - (time.monotonic() - begun))
    path = out / "results.json"
    options = ["--full", "--device", "cuda", "--results", str(path), "--limit", str(left)]
    command = [*gpu_check.PYTEST, str(gpu_check.ROOT / "bench"), *options]
    # In the tests' folder: the project's root holds a fastrnn that is not built.
    status = gpu_check.status_within(
        left + GRACE, command, cwd=gpu_check.ROOT / "tests", env=variables
    )
    if status is None:
        name = results.give_up(path)
        print(f"gpu-bench: {name or 'what comes before the rows'} did not end", file=sys.stderr)
        return 1
    return status


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Measure, and say in one line what stood in the way."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the results")
    parser.add_argument("--limit", type=float, default=LIMIT, metavar="SECONDS")
    parser.add_argument("--commit", default="", help="what the sources are, where git cannot tell")
    given = parser.parse_args(arguments)
    gpu_check.end_with_steps()
    try:
        if not given.limit > 0:
            raise CannotCheckError(f"--limit is {given.limit}, expected more than 0 seconds")
        return bench(given.out.resolve(), given.limit, given.commit)
    except CannotCheckError as error:
        print(f"gpu-bench: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
