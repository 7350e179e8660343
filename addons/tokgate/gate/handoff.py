"""Gives a client's socket to an opener in another process: the descriptor by SCM_RIGHTS, with what is known of it.

One datagram a connection on a SOCK_SEQPACKET socket pair: a JSON line that describes it, then the bytes read so far.
"""

import socket
from dataclasses import dataclass
from typing import Final

from pydantic import TypeAdapter

from tokgate.gate.sockets import Socket
from tokgate.traffic.seen import Arrival

MAX_DATAGRAM: Final = 160 * 1024
"""More than what a greeting may hold and its description; below the kernel's default for one datagram."""
QUEUE_OCTETS: Final = 8 << 20
"""Octets of what was handed over and not yet taken: a client's few long heads must not fill it."""
SO_SNDBUFFORCE: Final = 32  # asm-generic/socket.h


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
        return _DESCRIPTION.dump_json((self.arrival, self.tls, self.explicit)) + b"\n" + self.received

    @classmethod
    def decode(cls, datagram: bytes) -> "Handover":
        """Read a datagram. Raises ValueError for anything that `encode` didn't make."""
        line, newline, received = datagram.partition(b"\n")
        if not newline:
            raise ValueError("a handover has no description")
        return cls(*_DESCRIPTION.validate_json(line), received)


_DESCRIPTION: Final = TypeAdapter(tuple[Arrival, bool, bool])


class OpenerChannel:
    """The openers in other processes, behind one socket: whichever is free takes the next connection."""

    def __init__(self, sock: socket.socket) -> None:
        """`sock` is the writing end of `channel`."""
        self.handed_over = 0
        self.failed = 0
        self._socket: Final = sock
        sock.setblocking(False)

    def adopt(self, client: Socket, arrival: Arrival, received: bytes, *, tls: bool, explicit: bool) -> bool:
        """Send a client's connection; False if it can't be sent now, since no opener receives."""
        datagram = Handover(arrival, tls, explicit, received).encode()
        try:
            socket.send_fds(self._socket, [datagram], [client.fileno()])
        except OSError:  # the queue is full: openers are overloaded, or none has run for long
            self.failed += 1
            return False
        self.handed_over += 1
        return True


def channel() -> tuple[socket.socket, socket.socket]:
    """A pair (to write, to read): gates inherit one end, openers the other, and each may be restarted."""
    write, read = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        write.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, QUEUE_OCTETS)
    except PermissionError:  # as much as net.core.wmem_max allows
        write.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, QUEUE_OCTETS)
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
