"""Gives a client's socket to an opener in another process: the descriptor by SCM_RIGHTS, with what is known of it.

One datagram a connection on a unix SOCK_SEQPACKET socket: a JSON line that describes it, then the bytes read so far.
"""

import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tokgate.blocklog.observation import Endpoint
from tokgate.gate.admission import Arrival
from tokgate.gate.sockets import Socket

MAX_DATAGRAM: Final = 160 * 1024
"""More than what a greeting may hold and its description; below the kernel's default for one datagram."""


@dataclass(frozen=True, slots=True)
class Handover:
    """A connection that changes hands. `tls`: the bytes begin a TLS connection; otherwise HTTP/1.

    `explicit`: the client speaks to a proxy, so that its request may be a CONNECT or in absolute form.
    """

    arrival: Arrival
    tls: bool
    explicit: bool
    received: bytes

    def encode(self) -> bytes:
        """The datagram."""
        arrival = self.arrival
        head = {
            "client": [arrival.client.ip, arrival.client.port],
            "destination": None if arrival.destination is None else [arrival.destination.ip, arrival.destination.port],
            "connect": arrival.connect,
            "connection": arrival.connection,
            "tls": self.tls,
            "explicit": self.explicit,
        }
        return json.dumps(head).encode() + b"\n" + self.received

    @classmethod
    def decode(cls, datagram: bytes) -> "Handover":
        """Read a datagram. Raises ValueError for anything that `encode` didn't make."""
        line, newline, received = datagram.partition(b"\n")
        if not newline:
            raise ValueError("a handover has no description")
        try:
            head: dict[str, Any] = json.loads(line)
            destination = head["destination"]
            arrival = Arrival(
                client=Endpoint(*head["client"]),
                destination=None if destination is None else Endpoint(*destination),
                connect=head["connect"],
                connection=head["connection"],
            )
            return cls(arrival, bool(head["tls"]), bool(head["explicit"]), received)
        except (KeyError, TypeError) as error:
            raise ValueError(f"a handover is malformed: {error!r}") from error


class RemoteOpeners:
    """Openers in other processes, in turn; one that can't be reached is left out for a moment, then tried again."""

    def __init__(self, paths: tuple[Path, ...]) -> None:
        """`paths`: the openers' sockets. None need be there yet."""
        self._paths: Final = paths
        self._sockets: Final[dict[Path, socket.socket]] = {}
        self._next = 0
        self.handed_over = 0
        self.failed = 0

    def adopt(self, client: Socket, arrival: Arrival, received: bytes, *, tls: bool, explicit: bool) -> bool:
        """Send to the first opener that takes it; False if none does."""
        datagram = Handover(arrival, tls, explicit, received).encode()
        if len(datagram) <= MAX_DATAGRAM:
            for _ in self._paths:
                self._next = (self._next + 1) % len(self._paths)
                if self._send(self._paths[self._next], client, datagram):
                    self.handed_over += 1
                    return True
        self.failed += 1
        return False

    def _send(self, path: Path, client: Socket, datagram: bytes) -> bool:
        for attempt in range(2):  # a socket kept from before an opener's restart fails once
            kept = self._sockets.get(path)
            try:
                if kept is None:
                    kept = self._sockets[path] = _connect(path)
                socket.send_fds(kept, [datagram], [client.fileno()])
                return True
            except BlockingIOError:  # its queue is full: it has more than enough to do
                return False
            except OSError:
                if kept is not None:
                    self._sockets.pop(path, None)
                    kept.close()
                if kept is None or attempt:
                    return False
        return False

    def close(self) -> None:
        """Close the sockets towards the openers."""
        while self._sockets:
            self._sockets.popitem()[1].close()


def _connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MAX_DATAGRAM)
        sock.connect(str(path))
    except OSError:
        sock.close()
        raise
    return sock


def receive(sock: socket.socket) -> tuple[Handover, socket.socket] | None:
    """Take one handover, on the opener's side; None when the gate has gone.

    Raises:
        BlockingIOError: nothing has come.
        ValueError: what came is no handover; its descriptors are closed.

    """
    datagram, descriptors, _, _ = socket.recv_fds(sock, MAX_DATAGRAM, 4)
    clients = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    if not datagram and not clients:
        return None
    try:
        if len(clients) != 1:
            raise ValueError(f"a handover has {len(clients)} descriptors")
        return Handover.decode(datagram), clients[0]
    except ValueError:
        for client in clients:
            client.close()
        raise
