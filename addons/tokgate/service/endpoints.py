"""Parses where gates listen and for whom: `gate@10443-10506`, `gate:tproxy@8443`, `gate:explicit@127.0.0.1:8080`."""

import re
import socket
from collections import defaultdict
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tokgate.gate.sockets import Entry

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


def is_gate_mode(spec: str) -> bool:
    """Whether a `--mode` is that of a gate, and not mitmproxy's."""
    return re.split("[:@]", spec, maxsplit=1)[0] == "gate"


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
