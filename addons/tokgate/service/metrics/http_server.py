"""Metrics and health over HTTP: `/metrics` for Prometheus, `/healthz` for health checks."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography import x509
from prometheus_client.exposition import choose_encoder
from whenever import Instant

from tokgate.block_page.authority import AUTHORITY
from tokgate.service.children import readable
from tokgate.service.metrics.families import families
from tokgate.service.metrics.sample import Vitals, problems

_CONNECTIONS: Final = 32
_IDLE: Final = 15
"""Seconds."""
_BEAT: Final = 1.0
"""Seconds between two reports that the server accepts connections."""
_LAST_REQUESTS: Final = 1.0
"""Seconds in which whoever has connected before the server stopped accepting sends a request, and is answered."""


def answer(
    ask: Callable[[], Vitals], path: str, accept: str = "", now: Callable[[], Instant] = Instant.now
) -> tuple[HTTPStatus, str, bytes]:
    """Status, media type and body for a path. `ask` returns the vitals, or raises OSError, which makes a 503."""
    if path not in ("/metrics", "/healthz"):
        return HTTPStatus.NOT_FOUND, "text/plain", b"there is /metrics, and /healthz\n"
    try:
        vitals = ask()
    except OSError as error:
        return HTTPStatus.SERVICE_UNAVAILABLE, "application/json", _health([str(error)])
    if path == "/healthz":
        found = problems(vitals)
        return HTTPStatus.SERVICE_UNAVAILABLE if found else HTTPStatus.OK, "application/json", _health(found)
    encode, kind = choose_encoder(accept)
    collector = SimpleNamespace(collect=partial(families, complete(vitals, now())))
    return HTTPStatus.OK, kind, encode(collector)


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


class _Request(BaseHTTPRequestHandler):
    """A connection, closed after one answer. Other methods than GET and HEAD get 501."""

    server: "Server"
    timeout = _IDLE
    error_content_type, error_message_format = "text/plain", "%(message)s\n"

    def do_GET(self) -> None:
        if "transfer-encoding" in self.headers or self.headers.get("content-length", "0") != "0":
            self.send_error(HTTPStatus.BAD_REQUEST, "a request here has no body")
            return
        status, kind, body = answer(self.server.ask, urlsplit(self.path).path, self.headers.get("accept", ""))
        self.send_response(status)
        said = {"content-type": kind, "content-length": str(len(body)), "cache-control": "no-store"}
        for name, value in (*said.items(), ("x-content-type-options", "nosniff")):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def version_string(self) -> str:
        return "tokgate"

    def log_message(self, *_: object) -> None:
        """Nothing: who asks is of no interest."""


class Server(ThreadingHTTPServer):
    """Answers on a listening socket that other processes may accept from as well; a thread for each connection."""

    def __init__(self, sock: socket.socket, ask: Callable[[], Vitals]) -> None:
        """`ask` returns the vitals, and blocks."""
        super().__init__(sock.getsockname()[:2], _Request, bind_and_activate=False)
        self.socket.close()
        sock.setblocking(False)  # whom another process has accepted nobody waits for
        self.socket, self.ask, self.timeout = sock, ask, 0.0
        self._places: Final = threading.Semaphore(_CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, or here while none can be started. Beyond the limit the connection is closed."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # EAGAIN of pthread_create(3)
            self.process_request_thread(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: a client that went away is no error."""


def serve_until(sock: socket.socket, ask: Callable[[], Vitals], lifeline: int, report: Callable[[], None]) -> None:
    """Serve until `lifeline` reaches end of file, with the supervisor's exit.

    On SIGTERM the requests that have come are answered; those that come then are for whoever else listens on `sock`.
    `report` is called about once a second.
    """
    server, ending, due = Server(sock, ask), threading.Event(), 0.0
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    while not ending.is_set():
        ready = readable([server, lifeline], _BEAT)
        if lifeline in ready:  # nothing is ever written
            os._exit(0)
        if ready:
            server.handle_request()
        if time.monotonic() >= due:
            report()
            due = time.monotonic() + _BEAT
    time.sleep(_LAST_REQUESTS)


def _health(found: list[str]) -> bytes:
    return json.dumps({"ok": not found, "problems": found}, ensure_ascii=False).encode() + b"\n"


def _until(instant: str | None, now: Instant) -> float | None:
    return None if instant is None else (Instant.parse_iso(instant) - now).total("seconds")
