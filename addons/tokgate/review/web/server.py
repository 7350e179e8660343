"""The web server of the review page: uvicorn on one listener, until interrupted; it gives up clients that never ask."""

import asyncio
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

PATIENCE: Final = 10.0
"""Seconds between two looks at a connection: it ends when at both its client had yet to say all of a request."""
CONNECTIONS: Final = 128
"""Above so many, requests are turned away (503)."""
_GRACE_SECONDS: Final = 5


class Connection(H11Protocol):
    """A connection whose client has to ask something: uvicorn alone would wait for ever for a first request, or a body.

    So whoever reaches the port, signed in or not, could hold all connections by saying nothing.
    """

    _is_late = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self.loop.call_later(PATIENCE, self._look)

    def _look(self) -> None:
        if self.transport.is_closing():
            return
        is_waiting = self.cycle is None or self.cycle.more_body
        if is_waiting and self._is_late:
            self.transport.close()
            return
        self._is_late = is_waiting
        self.loop.call_later(PATIENCE, self._look)


class _Server(uvicorn.Server):
    """Ends streams first: they would hold the shutdown up."""

    def __init__(self, config: uvicorn.Config, close_streams: Callable[[], None]) -> None:
        super().__init__(config)
        self._close_streams: Final = close_streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._close_streams()
        await super().shutdown(sockets)


def server(
    app: ASGIApp, close_streams: Callable[[], None], certificate: Path | None = None, key: Path | None = None
) -> uvicorn.Server:
    """A server for the application, with TLS if it is given a certificate; `close_streams` is called before it ends."""
    config = uvicorn.Config(
        app, http=Connection, ws="none", lifespan="on", log_level="warning", access_log=False, server_header=False,
        proxy_headers=False, ssl_certfile=certificate, ssl_keyfile=key, limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )  # fmt: skip
    return _Server(config, close_streams)


def serve(made: uvicorn.Server, listener: socket.socket) -> None:
    """Run until interrupted."""
    # The server raises a signal again when it has ended: as an exception it lets everything else end, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):  # the way to end it
        made.run(sockets=[listener])
