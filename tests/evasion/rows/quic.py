"""Rows of what plays with QUIC's first packets: how the hello is cut, what is around it, and whose packets it is in."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from labs.quic_packets import V1, V2, QuicClient, crypto, hello_of, packet
from tokgate.wire.quic import initials

ALLOWED: Final = "www.other.example.org"
BANNED: Final = "www.clips.example.org"
DRAFT_29, GREASE, UNKNOWN = 0xFF00001D, 0x1A2A3A4A, 0x12345678
PING, CLOSE, ACK = b"\1", b"\x1c\0\0\0", b"\2\0\0\0\0"


class Ends(StrEnum):
    """How an attempt ends for its client."""

    TOLD = "told"
    """CONNECTION_CLOSE, and a record."""
    UNREACHABLE = "unreachable"
    """An ICMP error, and a record."""
    SILENT = "silent"
    """What came is kept, or dropped, so that nothing is decided: the gate waits for what begins it."""


class Client:
    """A client of aioquic's, of which only the ids and the hello are used."""

    def __init__(self, name: str) -> None:
        flight = QuicClient(name).flight
        first = initials(flight[0])[0]
        self.destination, self.source = first.destination, first.source
        self.message = hello_of(flight)

    def packet(self, frames: bytes, number: int = 0, *, destination: bytes | None = None, **options: Any) -> bytes:
        whose = self.destination if destination is None else destination
        return packet(frames, number, ids=(whose, self.source), **options)

    def datagram(self, frames: bytes, number: int = 0, **options: Any) -> bytes:
        return self.packet(frames.ljust(1160, b"\0"), number, **options)

    def crypto(self, start: int = 0, end: int | None = None) -> bytes:
        return crypto(start, self.message[start:end])

    def long_header(self, kind: int, body: bytes, version: int = V1) -> bytes:
        """A packet of early data (1), of the handshake (2) or of Retry (3) that nobody can read."""
        ids = b"".join(bytes((len(one),)) + one for one in (self.destination, self.source))
        head = bytes((0xC0 | kind << 4,)) + struct.pack("!I", version) + ids
        return head + struct.pack("!H", 0x4000 | len(body)) + body


type Said = Sequence[bytes | tuple[int, bytes]]
"""Datagrams; beside a number: from another port of the client."""
type Says = Callable[[str], Said]


@dataclass(frozen=True, slots=True)
class Attempt:
    """Datagrams for a name."""

    id: str
    said: Says
    ends: Ends
    innocent: bool
    """The same for an allowed name is served; else an ordinary client's is."""


def _other(name: str) -> str:
    return ALLOWED if name == BANNED else BANNED


def _datagrams(make: Callable[[Client], Said]) -> Says:
    return lambda name: make(Client(name))


def _frames(make: Callable[[Client], bytes]) -> Says:
    return _datagrams(lambda client: [client.datagram(make(client))])


def _plain(**options: Any) -> Says:
    return _datagrams(lambda client: [client.datagram(client.crypto(), **options)])


def _halves(client: Client) -> list[bytes]:
    middle = len(client.message) // 2
    return [client.datagram(client.crypto(0, middle)), client.datagram(client.crypto(middle), 1)]


def _two_contents(client: Client) -> bytes:
    """The allowed name first, then the same octets with the banned one."""
    octets = client.message.replace(BANNED.encode(), ALLOWED.encode())
    return crypto(0, octets) + client.crypto()


def _coalesced(client: Client) -> Said:
    middle = len(client.message) // 2
    first = client.packet(client.crypto(0, middle))
    return [first + client.packet(client.crypto(middle).ljust(1200 - len(first), b"\0"), 1)]


def _two_ids(name: str) -> Said:
    """Both in one datagram: RFC 9000 §12.2 has servers drop the second."""
    one, other = Client(_other(name)), Client(name)
    return [one.packet(one.crypto()) + other.packet(other.crypto().ljust(1100, b"\0"))]


def _after(name: str, **options: Any) -> Said:
    """A connection for the other name, and one for this, between the same ports."""
    one, client = Client(_other(name)), Client(name)
    return [one.datagram(one.crypto()), client.datagram(client.crypto(), **options)]


def _same_id(name: str, number: int = 1, **options: Any) -> Said:
    """The same under the ids of the first connection."""
    one, client = Client(_other(name)), Client(name)
    client.destination, client.source = one.destination, one.source
    return [one.datagram(one.crypto()), client.datagram(client.crypto(), number, **options)]


def _second_hello(name: str, port: int = 0) -> Said:
    one, client = Client(_other(name)), Client(name)
    both = one.crypto() + crypto(len(one.message), client.message)
    second = one.datagram(crypto(len(one.message), client.message), 1)
    return [one.datagram(one.crypto()), (port, second) if port else one.datagram(both, 1)]


def _servers_id(name: str) -> Said:
    """From another port, to the id that the server has chosen: its keys still come from the client's."""
    one, client = Client(_other(name)), Client(name)
    again = one.datagram(crypto(len(one.message), client.message), 1, destination=b"chosenid", keys=one.destination)
    return [one.datagram(one.crypto()), (1, again)]


_INNOCENT: Final[Mapping[str, Says]] = {
    "plain": _plain(),
    "flight": lambda name: QuicClient(name).flight,
    "large": lambda name: QuicClient(name, large=True).flight,
    "version-2": _plain(version=V2),
    "number-1": _plain(size=1),
    "number-3": _plain(size=3, number=70000),
    "high-number": _plain(number=0x7FFFFFFF),
    "token": _plain(token=b"t" * 64),
    "long-id": _plain(destination=b"x" * 20),
    "padding-first": _frames(lambda c: bytes(200) + c.crypto()),
    "ping-first": _frames(lambda c: PING + c.crypto()),
    "ack-first": _frames(lambda c: ACK + c.crypto()),
    "empty-crypto-first": _frames(lambda c: crypto(0, b"") + c.crypto()),
    "second-half-first": _frames(lambda c: c.crypto(150) + c.crypto(0, 150)),
    "small-frames": _frames(lambda c: b"".join(c.crypto(at, at + 6) for at in range(0, len(c.message), 6))),
    "overlap": _frames(lambda c: c.crypto(0, 200) + PING + c.crypto(100)),
    "hello-twice": _frames(lambda c: c.crypto() + c.crypto()),
    "first-octet-last": _frames(lambda c: c.crypto(1) + bytes(9) + c.crypto(0, 1)),
    "two-datagrams": _datagrams(_halves),
    "two-datagrams-reversed": _datagrams(lambda c: _halves(c)[::-1]),
    "datagrams-twice": _datagrams(lambda c: [one for one in _halves(c) for _ in "12"]),
    "two-packets-in-a-datagram": _datagrams(_coalesced),
    "handshake-behind": _datagrams(lambda c: [c.packet(c.crypto().ljust(1100, b"\0")) + c.long_header(2, bytes(100))]),
    "early-data-behind": _datagrams(lambda c: [c.packet(c.crypto().ljust(1100, b"\0")) + c.long_header(1, bytes(100))]),
    "early-data-alone": _datagrams(lambda c: [c.long_header(1, bytes(1150)), c.datagram(c.crypto())]),
}
_TOLD: Final[Mapping[str, Says]] = {
    "no-id": _plain(destination=b""),
    "short-id": _plain(destination=b"x"),
    "no-fixed-bit": _plain(fixed=0),  # RFC 9287
    "long-frame-type": _frames(lambda c: b"\x40" + c.crypto()),
    "overlap-with-other-octets": _frames(_two_contents),
    "close-first": _frames(lambda c: CLOSE + c.crypto()),
    "stream-first": _frames(lambda c: b"\x0a\0\1x" + c.crypto()),
    "unknown-frame-first": _frames(lambda c: b"\x3f" + c.crypto()),
    "datagram-frame-first": _frames(lambda c: b"\x31\1x" + c.crypto()),  # RFC 9221
    "handshake-done-first": _frames(lambda c: b"\x1e" + c.crypto()),
    "ack-of-more-ranges-than-there-are": _frames(lambda c: b"\2\0\0\x7f\xff\0" + c.crypto()),
    "crypto-beyond-64-kib": _frames(lambda c: b"\6\x80\2\0\0\1x" + c.crypto()),
    "another-message-first": _frames(lambda c: crypto(0, b"\2" + c.message[1:])),
    "ping-alone-first": _datagrams(lambda c: [c.datagram(PING), c.datagram(c.crypto(), 1)]),
    "padding-alone-first": _datagrams(lambda c: [c.datagram(b""), c.datagram(c.crypto(), 1)]),
    "many-pings-first": _datagrams(lambda c: [*(c.datagram(PING, n) for n in range(40)), c.datagram(c.crypto(), 40)]),
    "zeros-behind": _datagrams(lambda c: [c.packet(c.crypto()).ljust(1200, b"\0")]),
    "less-than-1200-octets": _datagrams(lambda c: [c.packet(c.crypto())]),
    "second-connection": _after,
    "second-connection-version-2": lambda name: _after(name, version=V2),
    "second-connection-after-retry": lambda name: _after(name, token=b"t" * 64),
    "second-hello": _second_hello,
}
_UNREACHABLE: Final[Mapping[str, Says]] = {
    "version-draft-29": _plain(version=DRAFT_29),
    "version-grease": _plain(version=GREASE),
    "version-unknown": _plain(version=UNKNOWN),
    "id-of-21-octets": _plain(destination=b"x" * 21),
    "behind-an-unknown-version": _datagrams(lambda c: [c.long_header(0, bytes(20), UNKNOWN) + c.datagram(c.crypto())]),
    "behind-version-negotiation": _datagrams(lambda c: [c.long_header(0, bytes(2), 0) + c.datagram(c.crypto())]),
    "behind-a-short-header": _datagrams(lambda c: [b"\x40" + c.destination + c.datagram(c.crypto())]),
}
_SILENT: Final[Mapping[str, Says]] = {
    "behind-a-packet-too-short": _datagrams(lambda c: [b"\xe0\0\0\0\1\0\0\5junk!" + c.datagram(c.crypto())]),
    "behind-retry": _datagrams(lambda c: [c.long_header(3, bytes(20)) + c.datagram(c.crypto())]),
    "behind-early-data": _datagrams(lambda c: [c.long_header(1, bytes(100)) + c.datagram(c.crypto())]),
    "half": _datagrams(lambda c: _halves(c)[:1]),
    "halves-from-two-ports": _datagrams(lambda c: [_halves(c)[0], (1, _halves(c)[1])]),
    "behind-an-allowed-hello-of-another-id": _two_ids,
    "ids-of-an-allowed-connection": _same_id,
    "same-ids-and-packet-number": lambda name: _same_id(name, 0),
    "same-ids-version-2": lambda name: _same_id(name, version=V2),
    "second-hello-from-another-port": lambda name: _second_hello(name, 1),
    "second-hello-to-the-servers-id": _servers_id,
}


def attempts() -> Iterator[Attempt]:
    """All of them, an ordinary first packet first."""
    stopped = {Ends.TOLD: _TOLD, Ends.UNREACHABLE: _UNREACHABLE, Ends.SILENT: _SILENT}
    yield from (Attempt(name, said, Ends.TOLD, innocent=True) for name, said in _INNOCENT.items())
    for ends, rows in stopped.items():
        yield from (Attempt(name, said, ends, innocent=False) for name, said in rows.items())
