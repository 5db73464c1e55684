"""A keyboard in the browser that suggests as one types: ``fastrnn keyboard``."""

from __future__ import annotations

import errno
import importlib.util
import socket
import sys
import threading
import webbrowser
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence

from fastrnn.lm.errors import InputError

PORT = 8765
# Bytes of the states that are kept for all runs together; one of two layers of 1000 takes 16 KB.
KEPT = 256 << 20
WARNING = (
    "          anyone who can reach this machine over the network can use it, without a password "
    "or encryption"
)
INSTALL = "pip install 'fastrnn[keyboard]'"


def missing() -> List[str]:
    """The packages that the keyboard needs and that are not installed."""
    return [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]


def newest_run(folder: Path = Path("runs")) -> Path:
    """The run in `folder` that was last at its best."""
    found = [(path.stat().st_mtime, path) for path in folder.glob("*/best.npz")]
    if not found:
        raise InputError(f"RUN: there is no run in {folder}; `make demo` trains one")
    return max(found)[1].parent


def serve(runs: Sequence[Path], host: str, port: int, browser: bool, context: Any) -> None:
    """Serve the keyboard until Ctrl-C.

    Parameters
    ----------
    runs : sequence of Path
        Folders of runs, or checkpoints; by default the newest one in ``runs``.
    host : str
    port : int
        0 for any that is free.
    browser : bool
        Open the page in a browser.
    context : mxnet.Context

    Raises
    ------
    InputError
        If a package is missing, a run cannot be opened, or the address is not available.
    """
    if missing():
        packages = " and ".join(missing())
        raise InputError(f"keyboard: needs {packages}, not installed: {INSTALL}")
    import uvicorn

    from fastrnn.lm.keyboard.server import Keyboard, is_loopback, served_names

    if not 0 <= port < 1 << 16:
        raise InputError(f"port: got {port}, wanted 0 to 65535")
    with listening(host, port) as listener, ThreadPoolExecutor(1, "model") as worker:
        engines = worker.submit(_load, named(runs or [newest_run()]), context).result()
        everywhere = host in ("", "0.0.0.0", "::")
        keyboard = Keyboard(engines, worker, served_names(host), any_address=everywhere)
        config = uvicorn.Config(
            keyboard.app,
            access_log=False,
            log_level="error",
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=2,
        )
        port = listener.getsockname()[1]
        shown = "localhost" if everywhere else f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{port}/"

        def announce() -> None:
            print(f"keyboard  {address}  with {', '.join(engines)}; Ctrl-C ends it", flush=True)
            if not is_loopback(host):
                print(WARNING, flush=True)
            if browser:
                threading.Thread(target=_open_browser, args=(address,), daemon=True).start()

        _run(uvicorn.Server(config), keyboard, listener, announce)


def _run(server: Any, keyboard: Any, listener: socket.socket, announce: Callable[[], None]) -> None:
    """Serve until the signal to end, at which streams end first."""
    handle_exit, startup = server.handle_exit, server.startup

    async def start(**arguments: Any) -> None:
        await startup(**arguments)
        announce()  # not before: from now on a signal ends it cleanly

    def end(*arguments: Any) -> None:
        keyboard.ending = True
        handle_exit(*arguments)

    server.handle_exit, server.startup = end, start
    # Newer versions of uvicorn pass the signal on when all is closed.
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    print()


def named(runs: Sequence[Path]) -> Dict[str, Path]:
    """Runs by short names: the folder's, or as much of the path as tells them apart."""
    paths = [run.resolve() for run in runs]
    for run, path in zip(runs, paths):
        if paths.count(path) > 1:
            raise InputError(f"RUN: {run} is given more than once")
    names = {}
    for run, path in zip(runs, paths):
        length = 1
        while sum(other.parts[-length:] == path.parts[-length:] for other in paths) > 1:
            length += 1
        names["/".join(path.parts[-length:])] = run
    return names


def _load(runs: Dict[str, Path], context: Any) -> Dict[str, Any]:
    from fastrnn.lm.keyboard.engine import Engine
    from fastrnn.lm.keyboard.states import Kept

    kept = Kept(KEPT)
    return {name: Engine.load(run, kept, name, context) for name, run in runs.items()}


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens at an address."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # Only with the protocol's number does asyncio switch off Nagle's algorithm, which would
        # hold an answer's body back for 40 ms.
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InputError(f"host: {host!r} is not an address here: {error.strerror}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"port: {port} is in use; --port 0 takes any that is free") from None
        raise InputError(f"host: {host}:{port} cannot be had: {error.strerror}") from None
    return listener


def _open_browser(address: str) -> None:
    """Open the page, but not in a browser that would run in this terminal."""
    try:
        found: Any = webbrowser.get()
    except webbrowser.Error:
        found = None
    in_terminal = type(found) is webbrowser.GenericBrowser
    if found is None or in_terminal or not found.open(address):
        print(f"fastrnn: found no browser; open {address} in one", file=sys.stderr, flush=True)
