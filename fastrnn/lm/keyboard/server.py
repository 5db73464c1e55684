"""The keyboard's web server: one page, and an API for it.

Models run on one thread of their own, one piece of work after the other, so that no request keeps
the others waiting for long. Texts are neither logged nor kept beyond the states of the networks.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import (
    Any,
    AsyncIterator,
    Awaitable,
    Callable,
    Dict,
    FrozenSet,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    TypeVar,
)

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastrnn.lm.errors import InputError
from fastrnn.lm.keyboard.engine import Engine

LONGEST_TEXT = 250_000  # characters
LONGEST_BODY = 1 << 20  # bytes
MOST_TOKENS = 10_000
# Requests take turns after about this time.
TURN = 0.05
# A body that is slow to come is given up this many seconds after the command's end at the latest.
LOOK = 0.5
PAGE = Path(__file__).parent / "page"
FILES = ("server.js", "surprise.js", "keys.js", "keyboard.js", "style.css", "icon.svg")
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
Result = TypeVar("Result")


class RefusedError(Exception):
    """A request that gets an error: its status, the argument at fault and what is wrong."""

    def __init__(self, status: int, argument: str, message: str) -> None:
        super().__init__(message)
        self.status, self.argument, self.message = status, argument, message


class SuggestRequest(NamedTuple):
    """The body of ``/api/suggest``; the fields are those of :meth:`Engine.answer`."""

    run: str
    before: str
    after: str = ""
    start: int = 0
    k: int = 3


class GenerateRequest(NamedTuple):
    """The body of ``/api/generate``."""

    run: str
    before: str
    length: int = 400
    temperature: float = 0.8
    seed: Optional[int] = None


# What a number may be: at least, at most.
_RANGES = {
    "start": (0, LONGEST_TEXT),
    "k": (0, 10),
    "length": (1, MOST_TOKENS),
    "temperature": (0, 10),
    "seed": (0, 2**63),
}


class Keyboard:
    """The application.

    Parameters
    ----------
    engines : dict of str to Engine
        By the names of their runs.
    worker : ThreadPoolExecutor
        The one thread on which they may run.
    hosts : frozenset of str
        What the Host header may name, without the port.
    any_address : bool
        Whether it may also be the number of any address.
    """

    def __init__(
        self,
        engines: Mapping[str, Engine],
        worker: ThreadPoolExecutor,
        hosts: FrozenSet[str],
        any_address: bool = False,
    ) -> None:
        self.engines = engines
        self.worker = worker
        self.ending = False  # streams end soon after this is set
        routes = [
            Route("/api/runs", _guarded(self._runs)),
            Route("/api/suggest", _guarded(self._suggest), methods=["POST"]),
            Route("/api/generate", _guarded(self._generate), methods=["POST"]),
            *(Route(f"/{name}", _file(name)) for name in FILES),
            Route("/", _file("index.html")),
        ]
        app = Starlette(routes=routes, exception_handlers={HTTPException: _not_served})
        self.app: ASGIApp = _Guard(app, hosts, any_address)

    async def _on_worker(self, function: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self.worker, function, *arguments)

    async def _runs(self, request: Request) -> Response:
        return _json({"runs": [_described(name, e) for name, e in self.engines.items()]})

    async def _suggest(self, request: Request) -> Response:
        asked = _parsed(SuggestRequest, await self._body(request))
        engine = self._engine(asked)
        if len(asked.before) + len(asked.after) > LONGEST_TEXT:
            raise _too_long("before and after")
        rest = (asked.before, asked.after, asked.start, asked.k, TURN)
        return _json(dict(await self._on_worker(engine.answer, *rest)))

    async def _generate(self, request: Request) -> Response:
        asked = _parsed(GenerateRequest, await self._body(request))
        engine = self._engine(asked)
        if len(asked.before) > LONGEST_TEXT:
            raise _too_long("before")
        pieces = engine.write(asked.before, asked.length, asked.temperature, asked.seed)
        return StreamingResponse(self._lines(pieces), media_type="application/x-ndjson")

    async def _lines(self, pieces: Iterator[str]) -> AsyncIterator[bytes]:
        """One line of JSON for each piece of text; the last says that it is the end."""
        while not self.ending:
            piece = await self._on_worker(next, pieces, None)
            if piece is None:
                yield _line({"end": True})
                return
            if piece:
                yield _line({"text": piece})

    async def _body(self, request: Request) -> Dict[str, Any]:
        """The JSON object that a request brings."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise RefusedError(
                415, "content-type", f"content-type: got {kind!r}, wanted application/json"
            )
        content = bytearray()
        more = True
        while more:
            try:
                message = await asyncio.wait_for(request.receive(), LOOK)
            except asyncio.TimeoutError:
                if self.ending:
                    raise RefusedError(503, "body", "body: the keyboard has ended") from None
                continue
            if message["type"] == "http.disconnect":
                raise RefusedError(400, "body", "body: the client has gone")
            content += message.get("body", b"")
            more = message.get("more_body", False)
            if len(content) > LONGEST_BODY:
                raise RefusedError(413, "body", f"body: wanted at most {LONGEST_BODY:,} bytes")
        try:
            value = json.loads(bytes(content).decode("utf-8"))
        except (ValueError, RecursionError):
            raise RefusedError(400, "body", "body: wanted JSON in UTF-8") from None
        if not isinstance(value, dict):
            raise RefusedError(400, "body", "body: wanted a JSON object")
        return value

    def _engine(self, asked: Any) -> Engine:
        if asked.run not in self.engines:
            names = ", ".join(self.engines)
            raise RefusedError(404, "run", f"run: got {asked.run!r}, wanted one of {names}")
        return self.engines[asked.run]


def _described(name: str, engine: Engine) -> Dict[str, Any]:
    characters = engine.vocabulary.level == "character"
    tokens = engine.vocabulary.tokens
    return {
        "name": name,
        "level": engine.vocabulary.level,
        "vocabulary": len(tokens),
        # What an on-screen keyboard can offer.
        "characters": "".join(t for t in tokens if len(t) == 1) if characters else "",
    }


def _too_long(argument: str) -> RefusedError:
    return RefusedError(413, argument, f"{argument}: wanted at most {LONGEST_TEXT:,} characters")


def _json(value: Any, status: int = 200) -> Response:
    # Escapes all but ASCII: half of a surrogate pair, which a page may send, has no UTF-8.
    return Response(json.dumps(value), status, media_type="application/json")


def _line(value: Any) -> bytes:
    return json.dumps(value).encode("ascii") + b"\n"


def _guarded(
    handler: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """Turn what a handler refuses into JSON."""

    async def guarded(request: Request) -> Response:
        try:
            return await handler(request)
        except RefusedError as refused:
            return _error(refused)
        except InputError as error:
            argument = str(error).partition(":")[0]
            return _error(RefusedError(400, argument, str(error)))

    return guarded


def _error(refused: RefusedError) -> Response:
    error = {"argument": refused.argument, "message": refused.message}
    return _json({"error": error}, refused.status)


async def _not_served(request: Request, error: Exception) -> Response:
    """The answer for a path or a method that there is not."""
    assert isinstance(error, HTTPException)
    argument, got = (
        ("method", request.method) if error.status_code == 405 else ("path", request.url.path)
    )
    response = _error(
        RefusedError(error.status_code, argument, f"{argument}: there is no {got} here")
    )
    response.headers.update(error.headers or {})
    return response


def _file(name: str) -> Callable[[Request], Awaitable[Response]]:
    content = (PAGE / name).read_bytes()
    kind = _TYPES[name.rpartition(".")[2]]

    async def file(request: Request) -> Response:
        return Response(content, media_type=kind)

    return file


def _parsed(kind: Any, values: Dict[str, Any]) -> Any:
    """A request of `kind`, which has these values and no others."""
    wanted = {name: str(hint) for name, hint in kind.__annotations__.items()}
    for name in values:
        if name not in wanted:
            raise RefusedError(
                400, name, f"{name}: there is no such field; {', '.join(wanted)} are"
            )
    for name, hint in wanted.items():
        if name not in values:
            if name not in kind._field_defaults:
                raise RefusedError(400, name, f"{name}: is missing")
            continue
        _check(name, values[name], hint)
    return kind(**values)


def _check(name: str, value: Any, hint: str) -> None:
    optional = "Optional" in hint
    if value is None and optional:
        return
    if "str" in hint:
        if not isinstance(value, str):
            raise RefusedError(400, name, f"{name}: got {json.dumps(value)[:40]}, wanted text")
        return
    kinds = (int, float) if "float" in hint else (int,)
    least, most = _RANGES[name]
    if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= most:
        shown = json.dumps(value)[:40]
        what = "a number" if float in kinds else "a whole number"
        raise RefusedError(400, name, f"{name}: got {shown}, wanted {what} from {least} to {most}")


class _Guard:
    """Refuses requests that another site may have caused, and adds headers to all answers.

    A page of another site that has its name point to this machine (DNS rebinding) still sends that
    name as Host, and one that calls this address sends its own Origin.
    """

    def __init__(self, app: ASGIApp, hosts: FrozenSet[str], any_address: bool) -> None:
        self.app, self.hosts, self.any_address = app, hosts, any_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(k.lower().encode(), v.encode()) for k, v in _HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *headers]}
            await send(message)

        app: ASGIApp = self.app
        refused = self._refused(scope)
        if refused is not None:
            app = _error(refused)
        await app(scope, receive, send_with_headers)

    def _refused(self, scope: Scope) -> Optional[RefusedError]:
        headers: Dict[str, List[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        hosts = headers.get("host", [])
        if len(hosts) != 1 or not self._serves(host_name(hosts[0])):
            return RefusedError(421, "host", "host: this address has another name")
        for origin in headers.get("origin", []):
            if origin.partition("://")[2].lower() != hosts[0].lower():
                return RefusedError(403, "origin", f"origin: {origin!r} may not use this keyboard")
        return None

    def _serves(self, name: str) -> bool:
        if name in self.hosts:
            return True
        return self.any_address and is_address(name)


def host_name(host: str) -> str:
    """The name or address in a Host header, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def is_address(name: str) -> bool:
    """Whether this is the number of an address, which needs no DNS."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(name: str) -> bool:
    """Whether only this machine reaches the address `name`."""
    return name == "localhost" or (is_address(name) and ipaddress.ip_address(name).is_loopback)


def served_names(host: str) -> FrozenSet[str]:
    """What the Host header may say of a server at `host`."""
    names = {"localhost", "127.0.0.1", "::1", host.lower()}
    if not is_loopback(host):
        names.add(socket.gethostname().lower())
    return frozenset(names)
