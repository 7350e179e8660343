"""The web server of the review page: uvicorn on one listening socket."""

import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from tokgate.runtime.http_server import configured

CONNECTIONS: Final = 128


class _Server(uvicorn.Server):
    """Ends event streams before the shutdown, which would wait for them."""

    def __init__(self, config: uvicorn.Config, close_streams: Callable[[], None]) -> None:
        super().__init__(config)
        self._close_streams: Final = close_streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._close_streams()
        await super().shutdown(sockets)


def server(
    app: ASGIApp, close_streams: Callable[[], None], certificate: Path | None = None, key: Path | None = None
) -> uvicorn.Server:
    """A server for `app`, with TLS if there is a certificate; `close_streams` is called before the shutdown."""
    return _Server(configured(app, CONNECTIONS, lifespan="on", certificate=certificate, key=key), close_streams)


def serve(made: uvicorn.Server, listener: socket.socket) -> None:
    """Answer on the listener until SIGINT or SIGTERM, then end in order."""
    # The server raises a signal again when it has ended: as an exception it lets everything else end, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):  # the way to end it
        made.run(sockets=[listener])
