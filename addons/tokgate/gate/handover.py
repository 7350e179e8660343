"""Gives a client's socket to an opener in another process: the descriptor by SCM_RIGHTS, with what is known of it.

One datagram a connection on a SOCK_SEQPACKET socket pair: a JSON line that describes it, then the bytes read so far.
"""

import json
import socket
from dataclasses import dataclass
from typing import Any, Final

from tokgate.blocklog.observation import Endpoint
from tokgate.gate.admission import Arrival
from tokgate.gate.sockets import Socket
from tokgate.policy.identity import Identity

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
            "identity": _stated(arrival.identity),
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
                identity=_identity(head["identity"]),
            )
            return cls(arrival, bool(head["tls"]), bool(head["explicit"]), received)
        except (KeyError, TypeError) as error:
            raise ValueError(f"a handover is malformed: {error!r}") from error


def _stated(identity: Identity | None) -> list[Any] | None:
    if identity is None:
        return None
    return [identity.user, sorted(identity.groups), identity.device, identity.interface]


def _identity(stated: list[Any] | None) -> Identity | None:
    if stated is None:
        return None
    user, groups, device, interface = stated
    return Identity(user, frozenset(groups), device, interface)


class OpenerChannel:
    """The openers in other processes, behind one socket: whichever is free takes the next connection."""

    def __init__(self, sock: socket.socket) -> None:
        """`sock` is the writing end of `channel`."""
        self.handed_over = 0
        self.failed = 0
        self._socket: Final = sock
        sock.setblocking(False)

    def adopt(self, client: Socket, arrival: Arrival, received: bytes, *, tls: bool, explicit: bool) -> bool:
        """Send a client; False if it can't be sent now, because nobody takes any."""
        datagram = Handover(arrival, tls, explicit, received).encode()
        try:
            socket.send_fds(self._socket, [datagram], [client.fileno()])
        except OSError:  # the queue is full: they have more than enough to do, or are gone for longer
            self.failed += 1
            return False
        self.handed_over += 1
        return True


def channel() -> tuple[socket.socket, socket.socket]:
    """A pair (to write, to read): gates inherit one end, openers the other, and each may be restarted."""
    write, read = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    write.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MAX_DATAGRAM)
    return write, read


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
