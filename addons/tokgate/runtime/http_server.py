"""The HTTP server of the review page: uvicorn with a deadline for requests."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, Final

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from tokgate.traffic.limits import client_key

PATIENCE: Final = 10.0
"""Seconds between two checks of a connection: it is closed if a request was incomplete at both."""
_GRACE_SECONDS: Final = 5
_IDLE_SECONDS: Final = 5
"""For which a connection without an open request is kept."""

PER_ADDRESS: Final = 16
"""Connections without a whole request that one address keeps, in IPv6 one /64, once most places are taken."""
_TAKEN: Final = 0.75
"""The share of places from which on room is made: a whole floor may come by one address, and at once."""

type Message = MutableMapping[str, Any]
type Application = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]
"""An ASGI 3 application: scope, receive, send."""


class DeadlineConnection(H11Protocol):
    """A connection with a deadline for each request. uvicorn has none for the first request or for a body.

    Without it, a client that sends nothing would hold one of the limited connections for ever.
    """

    _is_late = False

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.began = self.loop.time()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        # Once places get few, the oldest unfinished connection of an address that has too many of them is closed.
        if len(self.server_state.connections) > _TAKEN * (self.limit_concurrency or 0):
            open_ones = (each for each in self.server_state.connections if isinstance(each, DeadlineConnection))
            waiting = (each for each in open_ones if each.is_waiting and not each.transport.is_closing())
            mine = [each for each in waiting if each.source == self.source]
            if len(mine) > PER_ADDRESS:
                min(mine, key=lambda each: each.began).transport.close()
        self.loop.call_later(PATIENCE, self._look)

    def send_400_response(self, msg: str) -> None:
        """As uvicorn's, which raises where an answer has begun before a body turned out to make no sense."""
        if self.cycle is not None:
            self.cycle.disconnected = True  # what the application still sends goes nowhere
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()

    @property
    def is_waiting(self) -> bool:
        """Whether a request has to come, or the rest of one."""
        return self.cycle is None or self.cycle.more_body or self.cycle.response_complete

    @property
    def source(self) -> str:
        """The client that the connection counts for: an IPv4 address, or a prefix of IPv6."""
        return "" if self.client is None else client_key(self.client[0])

    def _look(self) -> None:
        if self.transport.is_closing():
            return
        if self.is_waiting and self._is_late:
            self.transport.close()
            return
        self._is_late = self.is_waiting
        self.loop.call_later(PATIENCE, self._look)


def configured(
    app: Application,
    connections: int,
    *,
    certificate: Path | None = None,
    key: Path | None = None,
) -> uvicorn.Config:
    """The configuration of a server, with TLS if there is a certificate.

    Above the limit of `connections` requests get a 503. What a client does wrong is not logged: it would fill stderr.
    """
    return uvicorn.Config(
        app, http=DeadlineConnection, ws="none", lifespan="on", log_level="error", access_log=False,
        server_header=False, proxy_headers=False, ssl_certfile=certificate, ssl_keyfile=key,
        limit_concurrency=connections,
        timeout_keep_alive=_IDLE_SECONDS, timeout_graceful_shutdown=_GRACE_SECONDS,
    )  # fmt: skip
