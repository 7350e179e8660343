"""Sockets as the gate needs them: listeners, original destinations, connecting without blocking.

Linux only, by design: the gate stands behind nftables. Numbers that Python's socket module does not name are from the
kernel's headers, named beside them.
"""

import contextlib
import errno
import fcntl
import os
import socket
import struct
import sys
import termios
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from tokgate.policy.observation import Carried
from tokgate.policy.values.hostname import parse_address

IP_BIND_ADDRESS_NO_PORT: Final = 24  # linux/in.h; for IPv6 as well
TCP_SAVE_SYN: Final = 27  # linux/tcp.h, as the next one
TCP_SAVED_SYN: Final = 28
SO_ORIGINAL_DST: Final = 80  # linux/netfilter_ipv4.h, and the same number for IPv6

# Plain ints: the members of `socket`'s enumerations are slower to combine and to pass on.
STREAM: Final = int(socket.SOCK_STREAM)
_CONNECTING: Final = int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
_V4: Final = int(socket.AF_INET)
_V6: Final = int(socket.AF_INET6)
DONT_WAIT: Final = int(socket.MSG_DONTWAIT)
PEEK: Final = DONT_WAIT | int(socket.MSG_PEEK)
END_FOLLOWS: Final = DONT_WAIT | int(socket.MSG_MORE)
"""To send with: the end that follows at once travels in the same packet."""

BACKLOG: Final = 4096
DEFER_SECONDS: Final = 1
"""How long the kernel keeps a connection to itself until its first bytes are there (TCP_DEFER_ACCEPT, tcp(7)). One that
comes without is taken for a protocol in which the server speaks first."""

RST_ON_CLOSE: Final = struct.pack("ii", True, 0)
"""SO_LINGER on, zero seconds: closing sends a reset instead of an end."""

Socket = Any
"""A `socket.SocketType`: the C class under `socket.socket`, without the Python layer on top. Typed loosely, because
typeshed does not know its private `_accept`."""

Address = tuple[str, int]


class Entry(StrEnum):
    """How connections come to a listener, which says where their destination is found."""

    REDIRECT = "redirect"
    """By nftables `redirect`: the destination is in the connection tracking entry."""
    TPROXY = "tproxy"
    """By nftables `tproxy`: the destination is the socket's own address."""
    EXPLICIT = "explicit"
    """From a client that knows the proxy: the destination is in its request."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket and how connections come to it."""

    socket: Socket
    entry: Entry
    port: int
    family: int


class NoDestinationError(OSError):
    """The connection did not come by redirection: somebody dialled the port directly."""


def listen(host: str, port: int, entry: Entry) -> Listener:
    """Open a listener that accepts without blocking; gates that inherit it share its queue.

    IPv6 listeners take IPv6 only, so that a client's address is never IPv4-mapped.

    Raises:
        OSError: the port is taken by somebody else, or needs privileges.

    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.SocketType(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
        # Inherited by accepted sockets: what they exchange is small and must not wait for more.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        # Inherited as well: the ACK of a ClientHello then travels with what answers it: a packet less.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, False)
        if entry is not Entry.EXPLICIT:  # a client of an explicit proxy speaks first too, but may think for long
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, DEFER_SECONDS)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, True)
        if entry is Entry.TPROXY:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT, True)  # for IPv6 as well
            sock.setsockopt(socket.IPPROTO_TCP, TCP_SAVE_SYN, True)  # for `traffic_class`
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return Listener(sock, entry, sock.getsockname()[1], family)


def acceptor(sock: Socket) -> Callable[[], tuple[int, Any]]:
    """What takes a connection from a listener: its descriptor and the client's address. It makes no Python socket."""
    take: Callable[[], tuple[int, Any]] = sock._accept  # noqa: SLF001 - as `socket.accept` does
    return take


def waiting(sock: Socket) -> int:
    """How many connections wait at a listener (`tcpi_unacked`, tcp(7)): told in 0.7 µs, accepting in vain takes 5."""
    return int.from_bytes(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28)[24:], sys.byteorder)


def original_destination(sock: Socket, listener: Listener) -> Address:
    """Where the client wanted to go when it was redirected here.

    Raises:
        NoDestinationError: it wanted to come here, which would make the gate call itself.
        OSError: the connection is gone already.

    """
    if listener.entry is Entry.TPROXY:
        host, port = sock.getsockname()[:2]
        destination = host, port
        if destination[1] == listener.port and is_here(host):
            raise NoDestinationError(errno.ELOOP, "the client dialled the gate itself")
    else:
        v4 = listener.family == socket.AF_INET
        level, size = (socket.IPPROTO_IP, 16) if v4 else (socket.IPPROTO_IPV6, 28)  # sockaddr_in, sockaddr_in6
        try:
            a: bytes = sock.getsockopt(level, SO_ORIGINAL_DST, size)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOPROTOOPT):  # no tracking entry, or none that was translated
                raise NoDestinationError(errno.ELOOP, "nobody redirected this connection") from error
            raise
        host = socket.inet_ntoa(a[4:8]) if v4 else socket.inet_ntop(socket.AF_INET6, a[8:24])
        destination = host, a[2] << 8 | a[3]
        if destination[1] == listener.port and destination[0] == sock.getsockname()[0]:
            raise NoDestinationError(errno.ELOOP, "the client dialled the gate itself")
    return destination


def is_here(address: str) -> bool:
    """Whether an address is this machine's: the kernel then takes it for this end, too."""
    own = _routed_from((address, 9))
    return own == address or (own != "" and address.startswith("127."))


def traffic_class(sock: Socket) -> int:
    """The DSCP of the SYN of a client whom TPROXY brought, in its place in the octet: without ECN. To be asked once.

    0 where the kernel has not kept it.
    """
    try:
        header: bytes = sock.getsockopt(socket.IPPROTO_TCP, TCP_SAVED_SYN, 128)
    except OSError:
        return 0
    if len(header) < 2:
        return 0
    octet = header[1] if header[0] >> 4 == 4 else header[0] << 4 & 0xF0 | header[1] >> 4
    return octet & 0xFC


def connect(
    destination: Address, mark: int | None = None, source: str | None = None, *, dscp: int | None = None
) -> Socket:
    """Begin to connect, from the address `source` if there is one.

    `dscp`, as of `traffic_class`: `source` is not this machine's address but a client's (IP_TRANSPARENT).

    Raises:
        OSError: no descriptor, no route, or another error that comes at once.

    """
    host, port = destination
    sock = socket.SocketType(_V6 if ":" in host else _V4, _CONNECTING)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        # The ACK that ends the handshake then travels with the ClientHello: a packet less, 6 % of the CPU.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, False)
        if mark is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("I", mark))  # an int would be signed
        if source is not None:
            # Without this a port is chosen at once, which then serves one connection alone, whatever its destination.
            sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, True)
            if dscp is not None:
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT, True)  # for IPv6 as well
            if dscp:
                v6 = ":" in host
                option = (socket.IPPROTO_IPV6, socket.IPV6_TCLASS) if v6 else (socket.IPPROTO_IP, socket.IP_TOS)
                sock.setsockopt(*option, dscp)
            sock.bind((source, 0))
        status = sock.connect_ex((host, port))
        if status and status != errno.EINPROGRESS:
            raise OSError(status, os.strerror(status))
    except OSError:
        sock.close()
        raise
    return sock


def is_connected(sock: Socket) -> bool:
    """Whether the peer of a socket that was told to connect has answered."""
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def leads_to(sock: Socket, destination: Address, places: Collection[Address]) -> bool:
    """Whether a socket that connects to `destination` ends on this machine, at one of the places to listen at.

    A connection to an address of this machine has it at both ends; all of loopback is this machine.
    """
    if not any(port == destination[1] for _, port in places):
        return False
    host, local = parse_address(destination[0]), parse_address(sock.getsockname()[0])
    own = (local, parse_address(_routed_from(destination)))
    if host is None or not (host in own or host.is_loopback or host.is_unspecified):
        return False
    if host.is_unspecified:  # the kernel takes it for loopback
        host = parse_address("127.0.0.1" if host.version == 4 else "::1")
    everywhere = parse_address("0.0.0.0" if host is None or host.version == 4 else "::")
    return any(port == destination[1] and parse_address(place) in (host, everywhere) for place, port in places)


def _routed_from(destination: Address) -> str:
    """The machine's address that the route to a destination has: itself, if it is this machine's own.

    A socket that is bound to another of its addresses doesn't tell.
    """
    family = socket.AF_INET6 if ":" in destination[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(destination)  # of a datagram socket: nothing is sent
        return str(probe.getsockname()[0])
    return ""


def reset_on_close(sock: Socket) -> None:
    """Make closing pass on a reset that came from the other side."""
    with contextlib.suppress(OSError):  # the peer is gone: nobody is left to be told
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)


def unacknowledged(sock: Socket) -> int:
    """How many octets were sent and not acknowledged, an end included (SIOCOUTQ, tcp(7)); 0 if the socket is closed."""
    try:
        return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except OSError:
        return 0


def octets(sock: Socket) -> Carried | None:
    """What the peer of a TCP connection has sent and what it has acknowledged, as the kernel counts it (tcp(7))."""
    try:
        info: bytes = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 136)
        acknowledged, received = struct.unpack_from("=QQ", info, 120)  # tcpi_bytes_acked, tcpi_bytes_received
    except (OSError, struct.error):  # gone, or a kernel that counts less
        return None
    return Carried(received, acknowledged)
