"""Opens the listeners of gates and announces them."""

import logging
import socket
from collections.abc import Callable, Sequence

from whenever import Instant

from tokgate.blocklog.records.record import counted
from tokgate.gate.egress.sources import elsewhere
from tokgate.gate.quic.sockets import Marks, QuicSockets, open_sockets
from tokgate.gate.sockets import STREAM, Entry, Listener, listen
from tokgate.gateway import udp_rules
from tokgate.policy.settings import Passage
from tokgate.policy.snapshot import Snapshot
from tokgate.runtime.banner import dialled, overview
from tokgate.service.endpoints import ListenEndpoint

logger = logging.getLogger(__name__)


def open_listeners(endpoints: Sequence[ListenEndpoint], kept: list[socket.socket] | None = None) -> list[Listener]:
    """A listener for each endpoint, without optional ones whose address family this machine lacks.

    Those among the `kept` that fit are taken out of it and used: clients wait in their queues.

    Raises:
        OSError: one can't be opened; all others are closed. Its text names the endpoint.
    """
    listeners: list[Listener] = []
    for endpoint in endpoints:
        try:
            found = next((sock for sock in kept or () if _fits(sock, endpoint)), None)
            if found is not None and kept is not None:
                kept.remove(found)
                listeners.append(inherited_listener(found.detach(), endpoint.entry))
            else:
                listeners.append(listen(endpoint.host, endpoint.port, endpoint.entry))
        except OSError as error:
            if endpoint.optional:
                logger.warning("not listening on %s: %s", endpoint.host, error)
                continue
            close_listeners(listeners)
            raise OSError(error.errno, f"{endpoint.host}:{endpoint.port}: {error.strerror}") from error
    return listeners


def _fits(sock: socket.socket, endpoint: ListenEndpoint) -> bool:
    """Whether a listening socket is where an endpoint says, and transparent where it has to be."""
    same = sock.family in (socket.AF_INET, socket.AF_INET6) and sock.getsockname()[:2] == (endpoint.host, endpoint.port)
    transparent = endpoint.entry is Entry.TPROXY
    return same and bool(sock.getsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT)) == transparent


def waited_for(listener: Listener, on_crash: Passage) -> bool:
    """Whether clients are to wait at a listener while nobody accepts, as after a crash.

    The kernel brings clients to a transparent one for as long as it is open: they would not pass.
    """
    return listener.entry is not Entry.TPROXY or on_crash is Passage.CLOSED


def inherited_listener(descriptor: int, entry: Entry) -> Listener:
    """A listener that another program has opened. Raises OSError."""
    with socket.socket(fileno=descriptor) as found:
        family, port = found.family, found.getsockname()[1]
        found.detach()
    return Listener(socket.SocketType(family, STREAM, 0, descriptor), entry, port, family)


def open_quic(listeners: Sequence[Listener], gates: int) -> QuicSockets | None:
    """The sockets for QUIC of that many gates, on the ports of transparent listeners.

    None if there are no such, or if this process may not: the firewall then finds nobody who listens, and refuses QUIC.
    """
    places = [listener.socket.getsockname()[:2] for listener in listeners if listener.entry is Entry.TPROXY]
    marks = Marks(carries=udp_rules.CARRIES, opens=udp_rules.OPENS, ends=udp_rules.ENDS, answers=udp_rules.ANSWERS)
    try:
        return open_sockets(places, gates, marks) if places else None
    except OSError as error:
        logger.warning("QUIC is left to the firewall, which refuses it: %s", error)
        return None


def close_listeners(listeners: Sequence[Listener]) -> None:
    for listener in listeners:
        listener.socket.close()


def announce(
    listeners: Sequence[Listener], snapshot: Snapshot, say: Callable[[str], None], quic: QuicSockets | None = None
) -> None:
    """Say where clients connect, what is enforced, and how to try it."""
    proxy = None
    together: dict[tuple[Entry, str], list[int]] = {}
    for listener in listeners:
        host, port = listener.socket.getsockname()[:2]
        together.setdefault((listener.entry, host), []).append(port)
    for (entry, host), ports in together.items():
        where = dialled(host, ports[0])
        more = f" and {counted(len(ports) - 1, 'port')} more" if len(ports) > 1 else ""
        say(f"gate: {entry.value} clients on {where}{more}")
        if entry is Entry.EXPLICIT:
            proxy = proxy or f"http://{where}"
    for address in elsewhere(snapshot.settings.egress.addresses):
        say(f"WARNING: settings.egress.addresses: {address} is no address of this machine: connections from it fail")
    for front in () if quic is None else quic.fronts[0]:
        say(f"gate: QUIC of tproxy clients on {dialled(*front.socket.getsockname()[:2])}")
    for line in overview(snapshot, Instant.now(), proxy):
        say(line)
