"""Metrics and health over HTTP: `/metrics` for Prometheus, `/healthz` for whoever watches one number.

By waitress, and not by uvicorn as the review page with its streams: this runs in a thread beside mitmproxy's loop,
`ask` blocks, and connections on which nothing is asked have to end, since nobody signs in here.
"""

import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import waitress.server
from cryptography import x509
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from whenever import Instant

from tokgate.proxy.keys import AUTHORITY
from tokgate.proxy.metrics import families
from tokgate.proxy.vitals import Vitals, problems

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

logger = logging.getLogger(__name__)

_THREADS: Final = 2
_CONNECTIONS: Final = 32
_IDLE: Final = 15
"""Seconds."""
_HEADERS: Final = [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]


class Exposition:
    """A WSGI application over vitals, which it asks for at each request."""

    def __init__(self, ask: Callable[[], Vitals], now: Callable[[], Instant] = Instant.now) -> None:
        """`ask` may raise OSError: nobody answers."""
        self._ask: Final = ask
        self._now: Final = now

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer one request."""
        status, kind, body = self._answer(environ)
        headers = [("Content-Type", kind), ("Content-Length", str(len(body))), *_HEADERS]
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            headers.append(("Allow", "GET, HEAD"))
        start_response(f"{status.value} {status.phrase}", headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _answer(self, environ: "WSGIEnvironment") -> tuple[HTTPStatus, str, bytes]:
        path = environ.get("PATH_INFO", "")
        if path not in ("/metrics", "/healthz"):
            return HTTPStatus.NOT_FOUND, "text/plain", b"there is /metrics, and /healthz\n"
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", b"only GET and HEAD\n"
        try:
            vitals = self._ask()
        except OSError as error:
            return HTTPStatus.SERVICE_UNAVAILABLE, "application/json", _health([str(error)])
        if path == "/healthz":
            found = problems(vitals)
            return HTTPStatus.SERVICE_UNAVAILABLE if found else HTTPStatus.OK, "application/json", _health(found)
        encode, kind = choose_encoder(environ.get("HTTP_ACCEPT", ""))
        completed = complete(vitals, self._now())
        return HTTPStatus.OK, kind, encode(_Metrics(completed))


class _Metrics:
    """What prometheus_client encodes."""

    def __init__(self, vitals: Vitals) -> None:
        self._vitals: Final = vitals

    def collect(self) -> Iterator[Metric]:
        return families(self._vitals)


def complete(vitals: Vitals, now: Instant) -> Vitals:
    """With everything that depends on the present: ages, seconds until something, and certificates as they are now."""
    policy = vitals["policy"]
    bans = [
        ban | {"next_seconds": _until(ban["next"], now), "end_seconds": _until(ban["ends"], now)}
        for ban in policy["bans"]
    ]
    log = vitals["log"]
    if log is not None:
        since = log["failing_since"]
        log |= {"failing": 0.0 if since is None else max(0.0, now.timestamp(unit="millisecond") / 1000 - since)}
    return {
        **vitals,
        "policy": {**policy, "bans": bans, "age": -(_until(policy["loaded_at"], now) or 0.0)},
        "log": log,
        "certificates": certificates(Path(vitals["confdir"]), now),
    }


def certificates(folder: Path, now: Instant) -> dict[str, float]:
    """Seconds until the first of an authority's certificates expires, by file; without one, or a readable one, none."""
    path = folder / AUTHORITY
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError):
        return {}
    ends = min(certificate.not_valid_after_utc for certificate in found)
    return {str(path): (Instant(ends) - now).total("seconds")}


def serve(sock: socket.socket, ask: Callable[[], Vitals]) -> None:
    """Serve on a listening socket, for good."""
    logging.getLogger("waitress").setLevel(logging.ERROR)  # it warns of queues
    server: Any = waitress.server.create_server(
        Exposition(ask),
        sockets=[sock],
        map={},
        threads=_THREADS,
        connection_limit=_CONNECTIONS,
        channel_timeout=_IDLE,
        cleanup_interval=_IDLE,
        max_request_body_size=1024,
        ident="tokgate",
        clear_untrusted_proxy_headers=True,
    )
    server.run()


def serve_until(sock: socket.socket, ask: Callable[[], Vitals], lifeline: int) -> int:
    """The life of a process that does nothing else: it ends with its supervisor."""
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    serve(sock, ask)
    return 0


def _end_with(lifeline: int) -> None:
    os.read(lifeline, 1)  # nothing is ever written
    os._exit(0)


def _health(found: list[str]) -> bytes:
    return json.dumps({"ok": not found, "problems": found}, ensure_ascii=False).encode() + b"\n"


def _until(instant: str | None, now: Instant) -> float | None:
    return None if instant is None else (Instant.parse_iso(instant) - now).total("seconds")
