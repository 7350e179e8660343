"""Where gates listen, and how clients come there: `gate`, `gate:tproxy@8443`, `gate:explicit@127.0.0.1:8080`."""

import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tokgate.gate.sockets import Entry

DEFAULT_PORT: Final = 8080
_SPEC: Final = re.compile(r"gate(?::(?P<entry>[a-z]+))?(?:@(?:(?P<host>\[[^\]]+\]|[^:@]+):)?(?P<port>[0-9]{1,5}))?")
_EVERYWHERE: Final = ("0.0.0.0", "::")
_HERE: Final = ("127.0.0.1",)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address and port to listen on. `optional`: its address family may be missing on this machine."""

    host: str
    port: int
    entry: Entry
    optional: bool = False


def is_gate_mode(spec: str) -> bool:
    """Whether a `--mode` is one of a gate's."""
    return re.split("[:@]", spec, maxsplit=1)[0] == "gate"


def endpoints(specs: Sequence[str], host: str | None = None, port: int | None = None) -> tuple[Endpoint, ...]:
    """The endpoints of several modes; `host` and `port` hold for those that name none.

    Redirected clients are awaited everywhere, over IPv4 and IPv6; explicit ones on loopback only, unless told.

    Raises:
        ValueError: a mode is malformed, or two want the same port.

    """
    found = [endpoint for spec in specs for endpoint in _endpoints(spec, host, port)]
    places = {(endpoint.host, endpoint.port) for endpoint in found if endpoint.port}
    if len(places) < sum(bool(endpoint.port) for endpoint in found):
        raise ValueError("two modes want the same port: give each its own, as in gate@8443 gate:explicit@8080")
    return tuple(found)


def scrapers_endpoint(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, `[ADDRESS]:PORT` or, on loopback, `PORT`. Raises ValueError."""
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is no HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)


def listen_for_scrapers(host: str, port: int) -> socket.socket:
    """A socket on which metrics are asked for. Raises OSError."""
    return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


def _endpoints(spec: str, host: str | None, port: int | None) -> Iterator[Endpoint]:
    read = _SPEC.fullmatch(spec)
    try:
        entry = Entry((read and read["entry"]) or Entry.REDIRECT)
    except ValueError:
        read = None
    if read is None:
        words = ", ".join(f"gate:{entry.value}" for entry in Entry)
        raise ValueError(f"{spec!r} is no mode of a gate: gate, {words}, each with @PORT or @HOST:PORT")
    own_port = int(read["port"]) if read["port"] else DEFAULT_PORT if port is None else port
    if own_port > 65535:
        raise ValueError(f"{own_port} is no port")
    own_host = read["host"].strip("[]") if read["host"] else host
    if own_host:
        yield Endpoint(own_host, own_port, entry)
        return
    for default in _HERE if entry is Entry.EXPLICIT else _EVERYWHERE:
        yield Endpoint(default, own_port, entry, optional=":" in default)
