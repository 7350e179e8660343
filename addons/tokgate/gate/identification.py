"""Identifies clients besides by their address: by what they signed in as, their interface, their hardware address.

Linux only, like gates. The kernel keeps the interface of a TCP connection's first packet. getsockopt(IP_PKTOPTIONS),
which is meant for datagrams, returns it once IP_PKTINFO is set (net/ipv4/ip_sockglue.c, net/ipv6/ipv6_sockglue.c). For
a VLAN it is the VLAN's interface, for a bridge the bridge. Hardware addresses are in the kernel's neighbour table. It
has an entry for a client on the same link, since packets were just sent to it.
"""

import errno
import os
import socket
import struct
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from tokgate.gate.connection import Connection
from tokgate.policy.membership import Identifies, Identity, joined
from tokgate.policy.values.hostname import IPAddress, parse_address
from tokgate.traffic.enforcer import Enforcer

REMEMBERED: Final = 10.0
"""Seconds for which a neighbour's hardware address, and an interface's name, are not asked for again."""
MOST: Final = 65_536
"""Neighbours remembered."""
COMPLAIN_EVERY: Final = 60.0
"""Seconds between two reports of failed look-ups."""

_IP_PKTOPTIONS: Final = 9  # linux/in.h
_IPV6_2292PKTOPTIONS: Final = 6  # linux/in6.h
_CONTROL: Final = struct.Struct("@Nii")  # struct cmsghdr: length, level, type
_ALIGNED: Final = struct.calcsize("@N")
_CONTROL_OCTETS: Final = 256

_RTM_NEWNEIGH: Final = 28  # linux/rtnetlink.h
_RTM_GETNEIGH: Final = 30
_NLMSG_ERROR: Final = 2  # linux/netlink.h
_NLM_F_REQUEST: Final = 1
_NDA_DST: Final = 1  # linux/neighbour.h
_NDA_LLADDR: Final = 2
_HEADER: Final = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_NEIGHBOUR: Final = struct.Struct("=BBHiHBB")  # struct ndmsg: family, padding, padding, interface, state, flags, type
_ATTRIBUTE: Final = struct.Struct("=HH")  # struct nlattr: length, type
_FALLS_SILENT: Final = 0.2
"""Seconds that the kernel has to answer; it does so before `send` returns."""


class Identification:
    """Who clients are besides their address, as far as the policy in force uses it. A changed policy gets new gates."""

    def __init__(self, enforcer: Enforcer) -> None:
        """Policies that name no interface and no hardware address are spared the look-ups."""
        self._enforcer: Final = enforcer
        links = Links(partial(enforcer.failed, "links")) if enforcer.snapshot.identifies.links else None
        self._links: Final = links

    def of(self, connection: Connection) -> Identity | None:
        """By what the client of a connection has signed in as, and its link."""
        links, person = self._links, connection.person
        if links is None:
            return person
        link = links.identify(connection.client, connection.peer, self._enforcer.snapshot.identifies)
        return link if person is None else joined(link, person)

    def at(self, interface: int, peer: str) -> Identity | None:
        """By the link of a client of QUIC, which has no connection; `interface` is its index."""
        links = self._links
        return None if links is None else links.identify_at(interface, peer, self._enforcer.snapshot.identifies)

    def close(self) -> None:
        if self._links is not None:
            self._links.close()


def incoming_interface(sock: Any) -> int | None:
    """The index of the interface by which an accepted connection came; None where the kernel doesn't tell.

    Raises:
        OSError: the connection is gone.

    """
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, True)
        control = sock.getsockopt(socket.IPPROTO_IPV6, _IPV6_2292PKTOPTIONS, _CONTROL_OCTETS)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, False)  # else each later packet is kept a while
        return _index_in(control, (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO), 16)  # in6_pktinfo: address, interface
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_PKTINFO, True)
    control = sock.getsockopt(socket.IPPROTO_IP, _IP_PKTOPTIONS, _CONTROL_OCTETS)
    return _index_in(control, (socket.IPPROTO_IP, socket.IP_PKTINFO), 0)  # in_pktinfo: interface, two addresses


def _index_in(control: bytes, wanted: tuple[int, int], place: int) -> int | None:
    """The interface's index, in the control message of that level and type."""
    at = 0
    while at + _CONTROL.size <= len(control):
        length, level, kind = _CONTROL.unpack_from(control, at)
        if length < _CONTROL.size:
            return None
        data = at + _CONTROL.size + place
        if (level, kind) == wanted and data + 4 <= at + length <= len(control):
            index: int = struct.unpack_from("@i", control, data)[0]
            return index or None
        at += -(-length // _ALIGNED) * _ALIGNED
    return None


class Neighbours:
    """Looks neighbours up in the kernel's table, one at a time (rtnetlink(7))."""

    def __init__(self) -> None:
        """Nothing is opened before the first question."""
        self._socket: socket.socket | None = None
        self._sequence = 0

    def find(self, interface: int, address: IPAddress) -> str | None:
        """The hardware address of a neighbour; None if the address is no neighbour's, or its link has none.

        Raises:
            OSError: the kernel can't be asked.

        """
        if self._socket is None:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
            self._socket.settimeout(_FALLS_SILENT)
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        try:
            self._socket.send(_question(self._sequence, interface, address))
            while True:
                answer = self._socket.recv(8192)
                length, kind, _, sequence, _ = _HEADER.unpack_from(answer)
                if sequence == self._sequence:
                    break  # else it is the answer to a question that was given up
        except OSError:
            self.close()
            raise
        if kind == _NLMSG_ERROR:
            code = -struct.unpack_from("=i", answer, _HEADER.size)[0]
            if code in (errno.ENOENT, errno.ENODEV, errno.EINVAL):  # no such neighbour, or a link without neighbours
                return None
            raise OSError(code, os.strerror(code))
        return _hardware(answer[:length]) if kind == _RTM_NEWNEIGH else None

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _question(sequence: int, interface: int, address: IPAddress) -> bytes:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    body = _NEIGHBOUR.pack(family, 0, 0, interface, 0, 0, 0)
    body += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(address.packed), _NDA_DST) + address.packed
    return _HEADER.pack(_HEADER.size + len(body), _RTM_GETNEIGH, _NLM_F_REQUEST, sequence, 0) + body


def _hardware(answer: bytes) -> str | None:
    """The link-layer address in an answer, if it is as long as Ethernet's."""
    at = _HEADER.size + _NEIGHBOUR.size
    while at + _ATTRIBUTE.size <= len(answer):
        length, kind = _ATTRIBUTE.unpack_from(answer, at)
        if length < _ATTRIBUTE.size:
            return None
        if kind == _NDA_LLADDR:
            octets = answer[at + _ATTRIBUTE.size : at + length]
            return octets.hex(":") if len(octets) == 6 and any(octets) else None
        at += -(-length // 4) * 4
    return None


class Links:
    """Reads a client's interface and hardware address, where the policy uses them."""

    def __init__(
        self,
        complain: Callable[[Exception], None],
        *,
        neighbours: Neighbours | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`complain` gets the error of a failed look-up, at most once in COMPLAIN_EVERY seconds."""
        self._complain: Final = complain
        self._neighbours: Final = neighbours or Neighbours()
        self._monotonic: Final = monotonic
        self._names: dict[int, str] = {}
        self._hardware: dict[tuple[int, str], str | None] = {}
        self._forget_at = 0.0
        self._complained = -COMPLAIN_EVERY

    def identify(self, sock: Any, peer: str, identifies: Identifies) -> Identity | None:
        """Interface and hardware address of the client; None if the policy uses neither, or neither can be found."""
        if not identifies.links:
            return None
        try:
            index = incoming_interface(sock)
        except OSError as error:
            self._failed(error)
            return None
        return None if index is None else self.identify_at(index, peer, identifies)

    def identify_at(self, index: int, peer: str, identifies: Identifies) -> Identity | None:
        """As `identify`, of a client whose interface is known by its index, as of QUIC; the policy uses either."""
        now = self._monotonic()
        if now >= self._forget_at or len(self._hardware) >= MOST:
            self._forget_at, self._names, self._hardware = now + REMEMBERED, {}, {}
        try:
            interface = self._name(index) if identifies.interfaces else None
            device = self._device(index, peer) if identifies.hardware else None
        except OSError as error:
            self._failed(error)
            return None
        return Identity(device=device, interface=interface) or None

    def close(self) -> None:
        self._neighbours.close()

    def _name(self, index: int) -> str | None:
        name = self._names.get(index)
        if name is None:
            try:
                name = self._names[index] = socket.if_indextoname(index)
            except OSError:  # it has gone since
                return None
        return name

    def _device(self, index: int, peer: str) -> str | None:
        key = index, peer
        if key not in self._hardware:
            address = parse_address(peer)
            found = None if address is None else self._neighbours.find(index, address)
            if found is None:
                return None  # asked again next time: the table learns
            self._hardware[key] = found
        return self._hardware[key]

    def _failed(self, error: OSError) -> None:
        gone = error.errno in (errno.ENOTCONN, errno.EBADF, errno.EINVAL)  # the client has disconnected
        now = self._monotonic()
        if not gone and now - self._complained >= COMPLAIN_EVERY:
            self._complained = now
            self._complain(error)
