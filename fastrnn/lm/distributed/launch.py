"""Starts all processes of a training on this machine: ``fastrnn launch``. Nothing needs MXNet."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
from typing import Any, Dict, Iterator, List, Sequence, Tuple

from fastrnn._threads import are_given, physical_cores
from fastrnn.lm.command.parser import make_parser
from fastrnn.lm.distributed import variables
from fastrnn.lm.errors import InputError

LOOPBACK = "127.0.0.1"
# The time that processes have to end by themselves, in seconds: some wait for others in MXNet.
PATIENCE = 10.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1  # of Linux


def launch(options: argparse.Namespace) -> int:
    """``fastrnn launch``; returns the exit code."""
    arguments = options.arguments
    arguments = arguments[1:] if arguments[:1] == ["--"] else arguments
    if arguments[:1] != ["train"]:
        got = arguments[0] if arguments else "nothing"
        raise InputError(f"launch: got {got} after --, wanted train and its options")
    for name in ("workers", "servers"):
        if getattr(options, name) < 1:
            raise InputError(f"{name}: got {getattr(options, name)}, wanted at least 1")
    try:
        make_parser().parse_args(arguments)  # an error, or help, is printed once
    except SystemExit as leave:
        return int(leave.code or 0)
    with reserved_port() as port:
        return asyncio.run(_Processes(options.workers, options.servers, port, arguments).run())


def environment(workers: int, servers: int, port: int) -> Dict[str, str]:
    """What all processes of a training on this machine have in their environment."""
    found = {
        variables.ADDRESS: LOOPBACK,
        variables.OWN_ADDRESS: LOOPBACK,
        variables.PORT: str(port),
        variables.WORKERS: str(workers),
        variables.SERVERS: str(servers),
    }
    # The workers share the cores, unless the user says otherwise.
    if not are_given():
        found["MXNET_OMP_MAX_THREADS"] = str(max(1, physical_cores() // workers))
    return {**os.environ, **found}


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """A port of this machine that the system gives to no other process.

    MXNet's scheduler takes a number, and listens with SO_REUSEADDR. With this option, Linux lets it
    have a port that another socket holds and does not listen at.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((LOOPBACK, 0))
        yield held.getsockname()[1]


class _Processes:
    """A scheduler, servers and workers, which end together."""

    def __init__(self, workers: int, servers: int, port: int, arguments: Sequence[str]) -> None:
        self._arguments = arguments
        self._roles = ["scheduler"] + ["server"] * servers + ["worker"] * workers
        self._environment = environment(workers, servers, port)
        # For a task that waits for a process, the role and the process.
        self._running: Dict[Any, Tuple[str, Any]] = {}

    async def run(self) -> int:
        """Run until all workers are done or one process fails; returns the exit code."""
        loop = asyncio.get_running_loop()
        received: asyncio.Queue[int] = asyncio.Queue()
        for number in _SIGNALS:
            # Under nohup, the training outlives its terminal.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                loop.add_signal_handler(number, received.put_nowait, number)
        for role in self._roles:
            await self._start(role)
        signalled = asyncio.ensure_future(received.get())
        code = 0
        while code == 0 and not signalled.done() and self._tasks("worker"):
            done, _ = await asyncio.wait(
                [*self._running, signalled], return_when=asyncio.FIRST_COMPLETED
            )
            for task in done - {signalled}:
                role, _ = self._running.pop(task)
                code = code or _as_shells_say(task.result())
                if task.result():
                    _say(f"a {role} ended {_how(task.result())}; the others end, too")
        if signalled.done():
            code = 128 + signalled.result()
            # A worker then says what it has saved. In the others, MXNet passes it over.
            await self._end(signal.SIGINT, "worker")
        await self._end(signal.SIGTERM if code else 0)
        await self._end(signal.SIGKILL)
        signalled.cancel()
        return code

    async def _start(self, role: str) -> None:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "fastrnn", *self._arguments),
            env={**self._environment, variables.ROLE: role},
            stdin=asyncio.subprocess.DEVNULL,  # which they would divide among themselves
            # A terminal's Ctrl-C comes to this process, which hands it on.
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
        self._running[asyncio.ensure_future(child.wait())] = role, child

    def _tasks(self, role: str) -> List[Any]:
        """The tasks that wait for the processes of a role that run; '': of all roles."""
        return [task for task, (own, _) in self._running.items() if role in ("", own)]

    async def _end(self, number: int, role: str = "") -> None:
        """Send a signal to the processes that run, if it is one, and give them time to end."""
        tasks = self._tasks(role)
        for task in tasks:
            child = self._running[task][1]
            if number and child.returncode is None:
                # It may have ended without asyncio knowing yet.
                with contextlib.suppress(ProcessLookupError):
                    child.send_signal(number)
        if tasks:
            done, _ = await asyncio.wait(tasks, timeout=PATIENCE)
            for task in done:
                del self._running[task]


def _end_with_parent() -> None:
    """Have this process, which is about to run a program, end when its parent is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _as_shells_say(code: int) -> int:
    return 128 - code if code < 0 else code


def _how(code: int) -> str:
    if code < 0:
        return f"by {signal.Signals(-code).name}"
    return f"with exit code {code}"


def _say(message: str) -> None:
    print(f"fastrnn launch: {message}", file=sys.stderr, flush=True)
