"""Where gates and metrics listen, as `--mode` says it: parses, opens and announces.

Modes are `gate@10443-10506`, `gate:tproxy@8443`, `gate:explicit@127.0.0.1:8080`.
"""

import logging
import re
import socket
from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from whenever import Instant

from tokgate.blocklog.records.record import counted
from tokgate.gate.egress.dialler import elsewhere
from tokgate.gate.quic.sockets import PerMark, QuicSockets, open_sockets
from tokgate.gate.sockets import STREAM, Entry, Listener, listen
from tokgate.gateway import udp_rules
from tokgate.policy.settings import Passage
from tokgate.policy.snapshot import Snapshot
from tokgate.runtime.banner import dialled, overview, written

logger = logging.getLogger(__name__)


DEFAULT_PORT: Final = 8080
MAX_PORT: Final = 65_535
_SPEC: Final = re.compile(
    r"gate(?::(?P<entry>[a-z]+))?(?:@(?:(?P<host>\[[^\]]+\]|[^:@]+):)?(?P<port>[0-9]{1,5})(?:-(?P<last>[0-9]{1,5}))?)?"
)
EVERYWHERE: Final = ("0.0.0.0", "::")
_HERE: Final = ("127.0.0.1",)


@dataclass(frozen=True, slots=True)
class ListenEndpoint:
    """An address and port to listen on. `optional`: its address family may be missing on this machine."""

    host: str
    port: int
    entry: Entry
    optional: bool = False


def endpoints(specs: Sequence[str], host: str | None = None, port: int | None = None) -> tuple[ListenEndpoint, ...]:
    """The endpoints of several modes; `host` and `port` are the defaults of modes that state none.

    Gates for redirected clients listen on all addresses, over IPv4 and IPv6. Those for explicit clients listen on
    loopback, unless `host` is another address, or empty, which means all addresses.

    Raises:
        ValueError: a mode is malformed, or two want the same port of one address.
    """
    wanted = [(spec, endpoint) for spec in specs for endpoint in _endpoints(spec, host, port)]
    claims: defaultdict[int, list[tuple[str, str]]] = defaultdict(list)
    for spec, endpoint in wanted:
        claimed = claims[endpoint.port]
        other = next((its_spec for its_spec, its_host in claimed if _collide(its_host, endpoint.host)), None)
        if endpoint.port and other is not None:
            raise ValueError(
                f"{other} and {spec} both want port {endpoint.port}: give each its own, as in gate@8443 "
                "gate:explicit@8080"
            )
        claimed.append((spec, endpoint.host))
    return tuple(endpoint for _, endpoint in wanted)


def free_port(taken: Container[int], port: int | None = None) -> int:
    """The first port from `port` (8080) on that is not taken, or `port` if there is none. 0 stands for any port."""
    first = DEFAULT_PORT if port is None else port
    return next((each for each in range(first, MAX_PORT + 1) if each == 0 or each not in taken), first)


def _collide(host: str, other: str) -> bool:
    """Whether two hosts can't have listeners on one port: they are the same, or one stands for all of its family."""
    same_family = (":" in host) == (":" in other)
    return same_family and (host == other or host in EVERYWHERE or other in EVERYWHERE)


def scrapers_endpoint(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, `[ADDRESS]:PORT` or, on loopback, `PORT`. Raises ValueError."""
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > MAX_PORT:
        raise ValueError(f"{text!r} is no HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)


def listen_for_scrapers(host: str, port: int) -> socket.socket:
    """A listening socket for metrics. Raises OSError."""
    return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


def _endpoints(spec: str, host: str | None, port: int | None) -> Iterator[ListenEndpoint]:
    read = _SPEC.fullmatch(spec)
    try:
        entry = Entry((read and read["entry"]) or Entry.REDIRECT)
    except ValueError:
        read = None
    if read is None:
        words = ", ".join(f"gate:{entry.value}" for entry in Entry)
        raise ValueError(f"{spec!r} is no mode of a gate: gate, {words}, each with @PORT, @FIRST-LAST or @HOST:PORT")
    first = int(read["port"]) if read["port"] else DEFAULT_PORT if port is None else port
    last = int(read["last"] or first)
    if not first <= last <= MAX_PORT:
        raise ValueError(f"{read['port']}{'-' if read['last'] else ''}{read['last'] or ''} is no port, and no range")
    own_host = read["host"].strip("[]") if read["host"] else host
    for own_port in range(first, last + 1):
        if own_host:
            yield ListenEndpoint(own_host, own_port, entry)
            continue
        for default in _HERE if entry is Entry.EXPLICIT and own_host is None else EVERYWHERE:
            yield ListenEndpoint(default, own_port, entry, optional=":" in default)


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
    marks = PerMark(carries=udp_rules.CARRIES, opens=udp_rules.OPENS, tells=udp_rules.TELLS, answers=udp_rules.ANSWERS)
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
        more = f" and {counted(len(ports) - 1, 'port')} more" if len(ports) > 1 else ""
        say(f"gate: {entry.value} clients on {written(host, ports[0])}{more}")
        if entry is Entry.EXPLICIT:
            proxy = proxy or f"http://{dialled(host, ports[0])}"
    for address in elsewhere(snapshot.settings.egress.addresses):
        say(f"WARNING: settings.egress.addresses: {address} is no address of this machine: connections from it fail")
    for front in () if quic is None else quic.fronts[0]:
        say(f"gate: QUIC of tproxy clients on {written(*front.socket.getsockname()[:2])}")
    for line in overview(snapshot, Instant.now(), proxy):
        say(line)
