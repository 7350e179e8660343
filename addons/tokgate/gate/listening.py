"""Where gates listen: opening what was asked for, and saying so."""

import logging
from collections.abc import Callable, Sequence

from whenever import Instant

from tokgate.gate.endpoints import Endpoint
from tokgate.gate.overview import dialled, overview
from tokgate.gate.sockets import Entry, Listener, listen
from tokgate.policy.snapshot import Snapshot

logger = logging.getLogger(__name__)


def open_listeners(endpoints: Sequence[Endpoint]) -> list[Listener]:
    """A listener for each endpoint; without those whose address family this machine lacks.

    Raises:
        OSError: one can't be had, and none was opened; its text says which.

    """
    listeners: list[Listener] = []
    for endpoint in endpoints:
        try:
            listeners.append(listen(endpoint.host, endpoint.port, endpoint.entry))
        except OSError as error:
            if endpoint.optional:
                logger.warning("not listening on %s: %s", endpoint.host, error)
                continue
            close_listeners(listeners)
            raise OSError(error.errno, f"{endpoint.host}:{endpoint.port}: {error.strerror}") from error
    return listeners


def close_listeners(listeners: Sequence[Listener]) -> None:
    """Let go of them."""
    for listener in listeners:
        listener.socket.close()


def announce(listeners: Sequence[Listener], snapshot: Snapshot, say: Callable[[str], None]) -> None:
    """Say where clients come in, what is enforced, and how to try it."""
    proxy = None
    for listener in listeners:
        where = dialled(*listener.socket.getsockname()[:2])
        say(f"gate: {listener.entry.value} clients on {where}")
        if listener.entry is Entry.EXPLICIT:
            proxy = proxy or f"http://{where}"
    for line in overview(snapshot, Instant.now(), proxy):
        say(line)
