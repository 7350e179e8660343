"""Metrics and health over HTTP: `/metrics` for Prometheus, `/healthz` for health checks."""

import asyncio
import json
import os
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Final

import uvicorn
from cryptography import x509
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from whenever import Instant

from tokgate.block_page.authority import AUTHORITY
from tokgate.runtime.http_server import Message, configured
from tokgate.service.metrics.families import families
from tokgate.service.metrics.sample import Vitals, problems

_CONNECTIONS: Final = 32
_IDLE: Final = 15
"""Seconds."""
_BEAT: Final = 1.0
"""Seconds between two reports that the server's event loop runs."""
_LAST_REQUESTS: Final = 1.0
"""Seconds in which whoever has connected before the server stopped accepting sends a request."""
_HEADERS: Final = [
    (b"server", b"tokgate"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
]


class Exposition:
    """An ASGI application over vitals, which it requests anew for each request."""

    def __init__(self, ask: Callable[[], Awaitable[Vitals]], now: Callable[[], Instant] = Instant.now) -> None:
        """`ask` returns the vitals. It may raise OSError if there is no answer, which makes a 503."""
        self._ask: Final = ask
        self._now: Final = now

    async def __call__(self, scope: Message, _: object, send: Callable[[Message], Awaitable[None]]) -> None:
        """Answer one request."""
        method, headers = scope["method"], dict(scope["headers"])
        accept = headers.get(b"accept", b"").decode("latin-1")
        status, kind, body = await self._answer(method, scope["path"], accept)
        said = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(body)), *_HEADERS]
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            said.append((b"allow", b"GET, HEAD"))
        await send({"type": "http.response.start", "status": status.value, "headers": said})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})

    async def _answer(self, method: str, path: str, accept: str) -> tuple[HTTPStatus, str, bytes]:
        if path not in ("/metrics", "/healthz"):
            return HTTPStatus.NOT_FOUND, "text/plain", b"there is /metrics, and /healthz\n"
        if method not in ("GET", "HEAD"):
            return HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", b"only GET and HEAD\n"
        try:
            vitals = await self._ask()
        except OSError as error:
            return HTTPStatus.SERVICE_UNAVAILABLE, "application/json", _health([str(error)])
        if path == "/healthz":
            found = problems(vitals)
            return HTTPStatus.SERVICE_UNAVAILABLE if found else HTTPStatus.OK, "application/json", _health(found)
        encode, kind = choose_encoder(accept)
        completed = complete(vitals, self._now())
        return HTTPStatus.OK, kind, encode(_Metrics(completed))


class _Metrics:
    """A collector for prometheus_client's encoders."""

    def __init__(self, vitals: Vitals) -> None:
        self._vitals: Final = vitals

    def collect(self) -> Iterator[Metric]:
        return families(self._vitals)


def complete(vitals: Vitals, now: Instant) -> Vitals:
    """The vitals with values that depend on the present: ages, seconds until an instant, and certificates' expiry."""
    policy = vitals["policy"]
    bans = [
        ban | {"next_seconds": _until(ban["next"], now), "end_seconds": _until(ban["ends"], now)}
        for ban in policy["bans"]
    ]
    log = vitals["writer"]
    if log is not None:
        since = log["failing_since"]
        log |= {"failing": 0.0 if since is None else max(0.0, now.timestamp(unit="millisecond") / 1000 - since)}
    return {
        **vitals,
        "policy": {**policy, "bans": bans, "age": -(_until(policy["loaded_at"], now) or 0.0)},
        "writer": log,
        "certificates": certificates(Path(vitals["confdir"]), now),
    }


def certificates(folder: Path, now: Instant) -> dict[str, float]:
    """Seconds until the first certificate of the authority expires, by file; empty without a readable one."""
    path = folder / AUTHORITY
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError):
        return {}
    ends = min(certificate.not_valid_after_utc for certificate in found)
    return {str(path): (Instant(ends) - now).total("seconds")}


def serve(sock: socket.socket, ask: Callable[[], Vitals]) -> None:
    """Serve on a listening socket for ever. In a thread: in the main thread uvicorn would handle the signals."""
    _server(ask).run(sockets=[sock])


def _server(ask: Callable[[], Vitals]) -> uvicorn.Server:
    """A server of what `ask` returns, which blocks: in threads, or in the event loop while none can be started."""

    async def answer() -> Vitals:
        try:
            return await asyncio.to_thread(ask)
        except RuntimeError:  # EAGAIN of pthread_create(3)
            return ask()

    exposition = Exposition(answer)
    return uvicorn.Server(configured(exposition, _CONNECTIONS, lifespan="off", idle=_IDLE, log_level="error"))


def serve_until(sock: socket.socket, ask: Callable[[], Vitals], lifeline: int, report: Callable[[], None]) -> int:
    """Serve until `lifeline` reaches end of file, with the supervisor's exit; exit code 1 if serving fails.

    On SIGTERM the requests that have come are answered; those that come then are for whoever else listens on `sock`.
    `report` is called each second, by the event loop that serves.
    """
    loop, ending = asyncio.new_event_loop(), asyncio.Event()

    server = _server(ask)

    async def beat() -> None:
        while True:
            report()
            await asyncio.sleep(_BEAT)

    async def end() -> None:
        await ending.wait()
        for each in server.servers:
            each.close()
        await asyncio.sleep(_LAST_REQUESTS)  # uvicorn then closes connections without one
        server.should_exit = True

    async def whole() -> None:
        others = [asyncio.create_task(beat()), asyncio.create_task(end())]
        await server.serve(sockets=[sock])
        for each in others:
            each.cancel()

    def run() -> None:
        try:
            loop.run_until_complete(whole())
        finally:
            os._exit(0 if ending.is_set() else 1)

    signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(ending.set))
    threading.Thread(target=run, daemon=True).start()
    os.read(lifeline, 1)  # nothing is ever written
    os._exit(0)


def _health(found: list[str]) -> bytes:
    return json.dumps({"ok": not found, "problems": found}, ensure_ascii=False).encode() + b"\n"


def _until(instant: str | None, now: Instant) -> float | None:
    return None if instant is None else (Instant.parse_iso(instant) - now).total("seconds")
