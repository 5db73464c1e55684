"""Runs jobs in a process of their own: a kernel may hang, or take the GPU's context with it."""

from __future__ import annotations

import multiprocessing
import traceback
from multiprocessing.connection import Connection
from typing import Any, Callable, Iterator, NamedTuple, Optional, Sequence

# Seconds that a job may take.
LIMIT = 120.0


class Outcome(NamedTuple):
    """What a job returned, or what went wrong."""

    value: Any
    error: Optional[str] = None


Job = Callable[[], Any]


def here(jobs: Sequence[Job]) -> Iterator[Outcome]:
    """Run the jobs in this process, each when its outcome is asked for."""
    for job in jobs:
        yield _run(job)


def isolated(jobs: Sequence[Job], limit: float = LIMIT) -> Iterator[Outcome]:
    """Run the jobs, which can be pickled, in a process that is started again when it ends.

    A job that takes longer than `limit` seconds, or ends its process, has failed.
    """
    process = None
    try:
        for job in jobs:
            if process is None:
                process = _Process()
            outcome = process.run(job, limit)
            if outcome.error is not None:  # CUDA's context may be unusable
                process.end()
                process = None
            yield outcome
    finally:
        if process is not None:
            process.end()


class _Process:
    """A process that runs one job after the other."""

    def __init__(self) -> None:
        # Not forked: CUDA and MXNet do not survive that.
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other,), daemon=True)
        self._process.start()
        other.close()

    def run(self, job: Job, limit: float) -> Outcome:
        """Return the outcome of a job."""
        try:
            self._connection.send(job)
            if not self._connection.poll(limit):
                return Outcome(None, f"no end after {limit:.0f} seconds")
            outcome: Outcome = self._connection.recv()
            return outcome
        except (EOFError, OSError):
            self._process.join()
            return Outcome(None, f"the process ended with status {self._process.exitcode}")

    def end(self) -> None:
        """End the process, also in the middle of a job."""
        self._connection.close()
        self._process.kill()
        self._process.join()


def _serve(connection: Connection) -> None:
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        connection.send(_run(job))


def _run(job: Job) -> Outcome:
    """Run a job. Every error is an outcome: to find them is what the jobs are for."""
    try:
        return Outcome(job())
    except Exception as error:
        text = str(error).strip().splitlines() or [type(error).__name__]
        if isinstance(error, (RuntimeError, ValueError)):
            return Outcome(None, text[-1])
        at = traceback.extract_tb(error.__traceback__)[-1]
        return Outcome(None, f"{type(error).__name__}: {text[-1]} ({at.filename}:{at.lineno})")
