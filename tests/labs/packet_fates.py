"""What becomes of packets in the laboratory of rulesets: there are receivers wherever one may get to.

A packet that nobody gets was dropped. Whose sender is told so at once was refused by the gateway: all ports that are
asked have somebody who listens.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from labs.netns import ANY, FAMILY, Namespace, flush_conntrack
from labs.ruleset_lab import PORT, Lab
from tokgate.gateway import libnftables
from tokgate.gateway.nftables import REPLACING

PORTS = (22, 80, 443, 5228, 8443)
"""Where everybody listens, over TCP and UDP."""
ROLES = ("client", "guest", "origin", "gateway")
GATE, REFUSED, NOBODY = "gate", "refused", "nobody"
REDIRECT_PORTS = range(10443, 10507)
PATIENCE = 3.0
"""Seconds for what should come, on a crowded machine."""


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet between two addresses: a SYN, or a datagram that begins with `said`."""

    role: str
    source: str
    address: str
    port: int
    said: bytes | None = None
    """None for TCP."""
    mark: int = 0

    @property
    def version(self) -> int:
        return 6 if ":" in self.address else 4


class Fates:
    """Receivers everywhere in a laboratory: who gets a packet is told by its sender's address and port."""

    def __init__(self, lab: Lab, *, gates: bool = True) -> None:
        """`gates`: whether any listens."""
        self._lab = lab
        self._selector = selectors.DefaultSelector()
        self._opened = contextlib.ExitStack()
        for role in ROLES:
            namespace: Namespace = getattr(lab, role)
            for version in (4, 6):
                for port in PORTS:
                    self._add(namespace, role, version, port, socket.SOCK_STREAM)
                    self._add(namespace, role, version, port, socket.SOCK_DGRAM)
        for version in (4, 6):
            for port in (PORT, *REDIRECT_PORTS) if gates else ():
                self._add(lab.gateway, GATE, version, port, socket.SOCK_STREAM)
            if gates:
                self._add(lab.gateway, GATE, version, PORT, socket.SOCK_DGRAM)

    def _add(self, namespace: Namespace, role: str, version: int, port: int, kind: int) -> None:
        def make() -> socket.socket:
            made = socket.socket(FAMILY[version], kind | socket.SOCK_NONBLOCK)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if version == 6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if role == GATE:
                made.setsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT, 1)
            made.bind((ANY[version], port))
            if kind == socket.SOCK_STREAM:
                made.listen(256)
            return made

        self._selector.register(self._opened.enter_context(namespace.inside(make)), selectors.EVENT_READ, role)

    def __enter__(self) -> Fates:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        self._opened.close()

    def load(self, table: str) -> None:
        """Replace the gateway's table. Ports of clients may come again, and are new then."""

        def replace() -> None:
            libnftables.run(REPLACING + table)
            flush_conntrack()

        self._lab.gateway.inside(replace)

    def of(self, packets: Sequence[Packet], expected: Sequence[Collection[str]] | None = None) -> list[str]:
        """Send them, and who got each: a role, GATE, REFUSED or NOBODY.

        As soon as all are as `expected` (each one of several), or one is otherwise, that is all: of what nobody should
        get this takes some tenths of a second.
        """
        found: dict[int, str] = {}
        with contextlib.ExitStack() as opened:
            sent = self._sent(packets)
            senders = [opened.enter_context(sock) for sock, _ in sent]
            found |= {number: REFUSED for number, (_, refused) in enumerate(sent) if refused}
            ends = {(sock.type, *sock.getsockname()[:2]): number for number, sock in enumerate(senders)}
            for number, sock in enumerate(senders):
                tcp = packets[number].said is None
                self._selector.register(sock, selectors.EVENT_WRITE if tcp else selectors.EVENT_READ, number)
            began = time.monotonic()
            while time.monotonic() - began < PATIENCE and not self._settled(found, expected, len(packets), began):
                for key, _ in self._selector.select(0.05):
                    if isinstance(key.data, int):
                        self._told(key, found)
                    else:
                        found |= {ends[end]: key.data for end in self._received(key.fileobj) if end in ends}
            for sock in senders:
                with contextlib.suppress(KeyError):
                    self._selector.unregister(sock)
        return [found.get(number, NOBODY) for number in range(len(packets))]

    def _settled(
        self, found: dict[int, str], expected: Sequence[Collection[str]] | None, count: int, began: float
    ) -> bool:
        if expected is None:
            return len(found) == count
        if any(who not in expected[number] for number, who in found.items()):
            return True
        waiting = [NOBODY in each for number, each in enumerate(expected) if number not in found]
        return not waiting or (all(waiting) and time.monotonic() - began > 0.2)

    def _told(self, key: selectors.SelectorKey, found: dict[int, str]) -> None:
        """A sender hears something: that it is connected, which its receiver tells as well, or an error."""
        sock: Any = key.fileobj
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error == errno.ECONNREFUSED:
            found[key.data] = REFUSED
        self._selector.unregister(sock)

    def _received(self, receiver: Any) -> Iterator[tuple[int, str, int]]:
        with contextlib.suppress(BlockingIOError):
            while True:
                if receiver.type == socket.SOCK_STREAM:
                    accepted, end = receiver.accept()
                    # At once, so that no port is kept in TIME_WAIT.
                    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    accepted.close()
                else:
                    _, end = receiver.recvfrom(2048)
                yield receiver.type, *end[:2]

    def _sent(self, packets: Sequence[Packet]) -> list[tuple[socket.socket, bool]]:
        made: dict[int, tuple[socket.socket, bool]] = {}
        for role in {each.role for each in packets}:
            mine = {number: each for number, each in enumerate(packets) if each.role == role}
            made |= getattr(self._lab, role).inside(lambda mine=mine: {n: _send(each) for n, each in mine.items()})
        return [made[number] for number in range(len(packets))]


def _send(packet: Packet) -> tuple[socket.socket, bool]:
    """The sender, and whether it was told at once, as programs of the gateway's own are, that it may not."""
    kind = socket.SOCK_STREAM if packet.said is None else socket.SOCK_DGRAM
    made = socket.socket(FAMILY[packet.version], kind | socket.SOCK_NONBLOCK)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, packet.mark)
    try:
        made.bind((packet.source, 0))
        made.connect((packet.address, packet.port))
        made.send(packet.said or b"")
    except BlockingIOError:
        return made, False
    except (PermissionError, ConnectionRefusedError):
        return made, True
    return made, False
