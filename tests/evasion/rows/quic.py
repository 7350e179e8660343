"""Rows of what plays with QUIC's first packets: how the hello is cut, what is around it, and whose packets it is in."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from labs.quic_packets import QuicClient, hello_of, packet
from tokgate.wire.quic import initials

ALLOWED: Final = "www.other.example.org"
BANNED: Final = "www.clips.example.org"
V1, V2, DRAFT_29, GREASE = 1, 0x6B3343CF, 0xFF00001D, 0x1A2A3A4A
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

    def __init__(self, name: str, *, large: bool = False) -> None:
        self.flight = QuicClient(name, large=large).flight
        first = initials(self.flight[0])[0]
        self.destination, self.source = first.destination, first.source
        self.message = hello_of(self.flight)

    def packet(self, frames: bytes, number: int = 0, *, destination: bytes | None = None, **options: Any) -> bytes:
        whose = self.destination if destination is None else destination
        return packet(frames, number, ids=(whose, self.source), **options)

    def datagram(self, frames: bytes, number: int = 0, **options: Any) -> bytes:
        return self.packet(frames.ljust(1160, b"\0"), number, **options)

    def crypto(self, start: int = 0, end: int | None = None) -> bytes:
        return crypto(start, self.message[start:end])


def crypto(offset: int, data: bytes) -> bytes:
    return b"\6" + struct.pack("!HH", 0x4000 | offset, 0x4000 | len(data)) + data


def long_header(kind: int, client: Client, body: bytes, version: int = V1) -> bytes:
    """A packet of early data (1) or of the handshake (2) that nobody can read."""
    ids = b"".join(bytes((len(one),)) + one for one in (client.destination, client.source))
    return bytes((0xC0 | kind << 4,)) + struct.pack("!I", version) + ids + struct.pack("!H", 0x4000 | len(body)) + body


type Said = Sequence[bytes | tuple[int, bytes]]
"""Datagrams; beside a number: from another port of the client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Datagrams for a name."""

    id: str
    what: str
    said: Callable[[str], Said]
    ends: Ends = Ends.TOLD
    innocent: bool = True
    """The same for an allowed name is served; else an ordinary client's is."""


def _other(name: str) -> str:
    return ALLOWED if name == BANNED else BANNED


def _plain(options: dict[str, Any]) -> Callable[[str], Said]:
    def said(name: str) -> Said:
        client = Client(name)
        return [client.datagram(client.crypto(), **options)]

    return said


def _frames(make: Callable[[Client], bytes]) -> Callable[[str], Said]:
    def said(name: str) -> Said:
        client = Client(name)
        return [client.datagram(make(client))]

    return said


def _datagrams(make: Callable[[Client], Said]) -> Callable[[str], Said]:
    return lambda name: make(Client(name))


def _in_threes(client: Client) -> bytes:
    return b"".join(client.crypto(at, at + 3) for at in range(0, len(client.message), 3))


def _halves(client: Client, **second: Any) -> list[bytes]:
    middle = client.message.index(client.message[60:61], 60) + 100
    first = client.datagram(client.crypto(0, middle), 0)
    return [first, client.datagram(client.crypto(middle), 1, **second)]


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


def attempts() -> Iterator[Attempt]:
    yield Attempt(id="plain", what="an ordinary first packet", said=_plain({}))
    yield Attempt(id="flight", what="aioquic's own first flight", said=lambda n: [*QuicClient(n).flight])
    yield Attempt(
        id="large", what="a hello that fills several datagrams", said=lambda n: [*QuicClient(n, large=True).flight]
    )
    plain: dict[str, tuple[str, dict[str, Any]]] = {
        "version-2": ("version 2", {"version": V2}),
        "number-1": ("a packet number of one octet", {"size": 1}),
        "number-3": ("of three octets", {"size": 3, "number": 70000}),
        "high-number": ("a high packet number", {"number": 0x7FFFFFFF}),
        "token": ("a token, as behind Retry", {"token": b"t" * 64}),
        "no-id": ("no destination id", {"destination": b""}),
        "short-id": ("a destination id of one octet", {"destination": b"x"}),
        "long-id": ("a destination id of 20 octets", {"destination": b"x" * 20}),
        "no-fixed-bit": ("the fixed bit cleared (RFC 9287)", {"fixed": 0}),
    }
    for name, (what, options) in plain.items():
        yield Attempt(
            id=name, what=what, said=_plain(options), innocent=name not in ("no-id", "short-id", "no-fixed-bit")
        )
    for name, version in (("draft-29", DRAFT_29), ("grease", GREASE), ("unknown", 0x12345678)):
        yield Attempt(
            id=f"version-{name}",
            what=f"version {version:#x}",
            said=_plain({"version": version}),
            ends=Ends.UNREACHABLE,
            innocent=False,
        )
    yield Attempt(
        id="id-too-long",
        what="a destination id of 21 octets",
        said=_plain({"destination": b"x" * 21}),
        ends=Ends.UNREACHABLE,
        innocent=False,
    )
    frames: dict[str, tuple[str, Callable[[Client], bytes]]] = {
        "padding-first": ("padding first", lambda c: bytes(200) + c.crypto()),
        "ping-first": ("PING first", lambda c: PING + c.crypto()),
        "ack-first": ("ACK first", lambda c: ACK + c.crypto()),
        "empty-crypto": ("an empty CRYPTO frame first", lambda c: crypto(0, b"") + c.crypto()),
        "reversed": ("the second half first", lambda c: c.crypto(150) + c.crypto(0, 150)),
        "small-frames": ("a frame for three octets", _in_threes),
        "overlap": ("halves that overlap", lambda c: c.crypto(0, 200) + PING + c.crypto(100)),
        "twice": ("the hello twice", lambda c: c.crypto() + c.crypto()),
        "gap-filled-last": ("the first octet last", lambda c: c.crypto(1) + bytes(9) + c.crypto(0, 1)),
        "long-frame-type": ("a frame type in two octets", lambda c: b"\x40" + c.crypto()),
    }
    for name, (what, make) in frames.items():
        yield Attempt(id=name, what=what, said=_frames(make), innocent=name != "long-frame-type")
    broken: dict[str, tuple[str, Callable[[Client], bytes]]] = {
        "two-contents": ("an overlap with other octets", _two_contents),
        "close-first": ("CONNECTION_CLOSE first", lambda c: CLOSE + c.crypto()),
        "stream-first": ("a STREAM frame first", lambda c: b"\x0a\0\1x" + c.crypto()),
        "unknown-frame": ("a frame of an unknown type first", lambda c: b"\x3f" + c.crypto()),
        "datagram-frame": ("a DATAGRAM frame first (RFC 9221)", lambda c: b"\x31\1x" + c.crypto()),
        "done-first": ("HANDSHAKE_DONE first", lambda c: b"\x1e" + c.crypto()),
        "ack-cut-off": ("an ACK that claims more ranges than there are", lambda c: b"\2\0\0\x7f\xff\0" + c.crypto()),
        "beyond-64-kib": ("a CRYPTO frame far behind", lambda c: b"\6\x80\2\0\0\1x" + c.crypto()),
        "no-hello": ("a message of another type first", lambda c: crypto(0, b"\2" + c.message[1:])),
    }
    for name, (what, make) in broken.items():
        yield Attempt(id=name, what=what, said=_frames(make), innocent=False)
    datagrams: dict[str, tuple[str, Callable[[Client], Said]]] = {
        "two-datagrams": ("the hello in two datagrams", lambda c: [*_halves(c)]),
        "two-datagrams-reversed": ("the same in reverse", lambda c: [*reversed(_halves(c))]),
        "datagrams-twice": ("each of them twice", lambda c: [one for one in _halves(c) for _ in "12"]),
        "coalesced": ("two packets in one datagram", _coalesced),
        "ping-alone": ("a datagram with PING alone first", lambda c: [c.datagram(PING), c.datagram(c.crypto(), 1)]),
        "padding-alone": ("one with padding alone first", lambda c: [c.datagram(b""), c.datagram(c.crypto(), 1)]),
        "handshake-behind": (
            "a packet of the handshake behind the first",
            lambda c: [c.packet(c.crypto().ljust(1100, b"\0")) + long_header(2, c, bytes(100))],
        ),
        "early-data-behind": (
            "early data behind the first packet",
            lambda c: [c.packet(c.crypto().ljust(1100, b"\0")) + long_header(1, c, bytes(100))],
        ),
        "early-data-alone": (
            "a datagram of early data first",
            lambda c: [long_header(1, c, bytes(1150)), c.datagram(c.crypto())],
        ),
        "zeros-behind": ("zeros behind the packet", lambda c: [c.packet(c.crypto()).ljust(1200, b"\0")]),
        "small": ("a datagram that is smaller than 1200 octets", lambda c: [c.packet(c.crypto())]),
    }
    for name, (what, say) in datagrams.items():
        yield Attempt(
            id=name,
            what=what,
            said=_datagrams(say),
            innocent=name not in ("zeros-behind", "small", "ping-alone", "padding-alone"),
        )
    yield Attempt(
        id="many-pings",
        what="forty datagrams with PING first",
        said=_datagrams(lambda c: [c.datagram(PING, n) for n in range(40)] + [c.datagram(c.crypto(), 40)]),
        innocent=False,
    )
    hidden: dict[str, tuple[str, Callable[[Client], Said], Ends]] = {
        "junk-before": (
            "behind a packet that is too short",
            lambda c: [b"\xe0\0\0\0\1\0\0\5junk!" + c.datagram(c.crypto())],
            Ends.SILENT,
        ),
        "version-before": (
            "behind a packet of a version that nobody knows",
            lambda c: [long_header(0, c, bytes(20), 0x12345678) + c.datagram(c.crypto())],
            Ends.UNREACHABLE,
        ),
        "negotiation-before": (
            "behind a packet that negotiates a version",
            lambda c: [long_header(0, c, bytes(2), 0) + c.datagram(c.crypto())],
            Ends.UNREACHABLE,
        ),
        "retry-before": (
            "behind a Retry packet",
            lambda c: [long_header(3, c, bytes(20)) + c.datagram(c.crypto())],
            Ends.SILENT,
        ),
        "short-before": (
            "behind a packet with a short header",
            lambda c: [b"\x40" + c.destination + c.datagram(c.crypto())],
            Ends.UNREACHABLE,
        ),
        "early-data-before": (
            "behind early data in one datagram",
            lambda c: [long_header(1, c, bytes(100)) + c.datagram(c.crypto())],
            Ends.SILENT,
        ),
        "half": ("a half of the hello", lambda c: [*_halves(c)[:1]], Ends.SILENT),
        "two-ports": ("one half from each of two ports", lambda c: [_halves(c)[0], (1, _halves(c)[1])], Ends.SILENT),
    }
    for name, (what, say, ends) in hidden.items():
        yield Attempt(id=name, what=what, said=_datagrams(say), ends=ends, innocent=False)
    several: dict[str, tuple[str, Callable[[str], Said], Ends]] = {
        "two-ids": ("behind an allowed hello in one datagram, by another id", _two_ids, Ends.SILENT),
        "second-connection": ("behind an allowed connection between the same ports", _after, Ends.TOLD),
        "second-version": ("the same in version 2", lambda n: _after(n, version=V2), Ends.TOLD),
        "after-retry": ("the same with a token and another id", lambda n: _after(n, token=b"t" * 64), Ends.TOLD),
        "same-id": ("under the ids of an allowed connection", _same_id, Ends.SILENT),
        "same-number": ("the same with the same packet number", lambda n: _same_id(n, 0), Ends.SILENT),
        "same-id-version-2": ("the same in version 2", lambda n: _same_id(n, version=V2), Ends.SILENT),
        "second-hello": ("in a second hello behind an allowed one", _second_hello, Ends.TOLD),
        "second-hello-migrated": ("the same from another port", lambda n: _second_hello(n, 1), Ends.SILENT),
        "servers-id": ("the same, to the server's id", _servers_id, Ends.SILENT),
    }
    for name, (what, said, ends) in several.items():
        yield Attempt(id=name, what=what, said=said, ends=ends, innocent=False)
