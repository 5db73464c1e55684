"""Processes beside the one that times calls.

One is for what would leave something behind in that one, another keeps a core busy.
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, Callable, Iterator

# It ends with the process that started it, also if that is killed.
_SPIN = """
import os, sys
if "pinned" in sys.argv:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
parent = os.getppid()
print(flush=True)
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
"""


def in_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a module's function returns, called in a new process with this one's sys.path.

    It is forked from one that has done nothing but import the libraries, which takes seconds.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(["bench.memory", "torch"])  # as far as they are installed
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


@contextmanager
def busy_core(neighbour: str) -> Iterator[None]:
    """Keep a core busy in the meantime, as `bench.cases.NEIGHBOURS` says."""
    if not neighbour:
        yield
        return
    command = [sys.executable, "-c", _SPIN, neighbour]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it runs
        try:
            yield
        finally:
            process.kill()
