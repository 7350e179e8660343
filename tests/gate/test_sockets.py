"""Where redirected clients wanted to go, as the kernel says it, and how the gate knows its own doors and traffic."""

import _socket
import errno
import socket
import struct
from typing import Any, ClassVar

import pytest

from labs.gate_lab import until
from tokgate.gate import sockets
from tokgate.gate.sockets import (
    TCP_SAVE_SYN,
    Address,
    Entry,
    Listener,
    NoDestinationError,
    connect,
    leads_to,
    listen,
    octets,
    original_destination,
    traffic_class,
    waiting,
)
from tokgate.policy.observation import Carried


class Answering:
    """A socket to which the kernel says what a test wants: a socket address, or an error."""

    def __init__(self, answer: bytes | OSError, own: tuple[Any, ...] = ("192.0.2.1", 8080)) -> None:
        self._answer, self._own = answer, own

    def getsockopt(self, *_: int) -> bytes:
        """What the connection tracking entry says."""
        if isinstance(self._answer, OSError):
            raise self._answer
        return self._answer

    def getsockname(self) -> tuple[Any, ...]:
        """Where the connection was accepted."""
        return self._own


def redirecting(family: int) -> Listener:
    """A listener of redirected connections."""
    return Listener(None, Entry.REDIRECT, 8080, family)


def test_the_destination_of_a_redirected_connection() -> None:
    """Address and port as sockaddr_in and sockaddr_in6 have them, in network order."""
    v4 = struct.pack("=H", socket.AF_INET) + (443).to_bytes(2) + socket.inet_aton("198.51.100.7") + bytes(8)
    assert original_destination(Answering(v4), redirecting(socket.AF_INET)) == ("198.51.100.7", 443)
    v6 = struct.pack("=H", socket.AF_INET6) + (8443).to_bytes(2) + bytes(4)
    v6 += socket.inet_pton(socket.AF_INET6, "2001:db8::7") + bytes(4)
    taken = Answering(v6, ("2001:db8::1", 8080, 0, 0))
    assert original_destination(taken, redirecting(socket.AF_INET6)) == ("2001:db8::7", 8443)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOPROTOOPT])
def test_who_dials_the_gate_directly_is_told_apart(family: int, number: int) -> None:
    """Without connection tracking or without an entry, nobody was redirected: counted as a loop, and reset."""
    with pytest.raises(NoDestinationError):
        original_destination(Answering(OSError(number, "none")), redirecting(family))
    with pytest.raises(OSError, match="gone") as raised:
        original_destination(Answering(OSError(errno.ENOTCONN, "gone")), redirecting(family))
    assert not isinstance(raised.value, NoDestinationError)


@pytest.mark.parametrize(
    ("host", "port", "own", "loops"),
    [
        ("192.0.2.1", 8080, "192.0.2.1", True),
        ("127.5.5.5", 8080, "127.0.0.1", True),  # all of 127.0.0.0/8 is this machine
        ("127.5.5.5", 8080, "", False),
        ("198.51.100.7", 8080, "192.0.2.1", False),
        ("192.0.2.1", 8443, "192.0.2.1", False),
    ],
)
def test_who_dials_the_gate_where_tproxy_brings_clients(
    host: str, port: int, own: str, loops: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the socket's own address is where the client wanted to go: it may be anybody's, or the gate's."""
    monkeypatch.setattr(sockets, "_routed_from", lambda destination: own)
    listener, taken = Listener(None, Entry.TPROXY, 8080, socket.AF_INET), Answering(b"", (host, port))
    if loops:
        with pytest.raises(NoDestinationError):
            original_destination(taken, listener)
    else:
        assert original_destination(taken, listener) == (host, port)


@pytest.mark.parametrize(
    ("host", "port", "loops"), [("192.0.2.1", 8080, True), ("192.0.2.1", 80, False), ("192.0.2.9", 8080, False)]
)
def test_who_dials_the_gate_where_it_is_redirected(host: str, port: int, loops: bool) -> None:
    """The gate's own address and port are its own; another port of that address may be a server's."""
    entry = struct.pack("=H", socket.AF_INET) + port.to_bytes(2) + socket.inet_aton(host) + bytes(8)
    if loops:
        with pytest.raises(NoDestinationError):
            original_destination(Answering(entry), redirecting(socket.AF_INET))
    else:
        assert original_destination(Answering(entry), redirecting(socket.AF_INET)) == (host, port)


def test_which_addresses_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those to which the kernel has a route from themselves; all of loopback is."""
    assert all(map(sockets.is_here, ("127.0.0.1", "127.5.5.5", "::1")))
    monkeypatch.setattr(sockets, "_routed_from", lambda _: "192.0.2.1")
    assert [sockets.is_here(each) for each in ("192.0.2.1", "198.51.100.7")] == [True, False]


@pytest.mark.parametrize(
    ("place", "leads"),
    [
        *((("192.0.2.1", 8080), True), (("0.0.0.0", 8080), True), (("192.0.2.9", 8080), False)),
        *((("::", 8080), False), (("192.0.2.1", 9090), False)),
    ],
)
def test_the_gateways_own_address_leads_back(place: Address, leads: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tunnel to the address and the port at which clients reach the gate would come in again as its own traffic.

    The route tells of it where the socket doesn't, which may be bound to another of the gate's addresses.
    """
    for source, route in (("192.0.2.1", ""), ("192.0.2.9", "192.0.2.1")):
        monkeypatch.setattr(sockets, "_routed_from", lambda destination, route=route: route)
        dialled = Answering(b"", (source, 40000))
        assert leads_to(dialled, ("192.0.2.1", 8080), [("192.0.2.9", 8080), place]) is leads
        assert not leads_to(dialled, ("192.0.2.2", 8080), [place])


PRIVILEGED = {(socket.IPPROTO_IP, socket.IP_TRANSPARENT), (socket.SOL_SOCKET, socket.SO_MARK)}


class Recording(_socket.socket):
    """A socket that remembers its options, and needs no right for those that only root may set."""

    made: ClassVar[list["Recording"]] = []

    def __init__(self, family: int, kind: int) -> None:
        super().__init__(family, kind)
        self.kind = kind
        self.options: dict[tuple[int, int], Any] = {}
        self.made.append(self)

    def setsockopt(self, level: int, option: int, *value: Any) -> None:
        self.options[level, option] = value[0]
        if (level, option) not in PRIVILEGED:
            super().setsockopt(level, option, *value)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Recording]:
    monkeypatch.setattr(Recording, "made", [])
    monkeypatch.setattr(socket, "SocketType", Recording)
    return Recording.made


COMMON = {
    (socket.SOL_SOCKET, socket.SO_REUSEADDR): 1,
    (socket.IPPROTO_TCP, socket.TCP_NODELAY): 1,
    (socket.IPPROTO_TCP, socket.TCP_QUICKACK): 0,
}
DEFERS = {(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT): 1}
V6_ONLY = {(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY): 1}
TRANSPARENT = {(socket.IPPROTO_IP, socket.IP_TRANSPARENT): 1, (socket.IPPROTO_TCP, sockets.TCP_SAVE_SYN): 1}


@pytest.mark.parametrize(
    ("host", "entry", "options"),
    [
        ("127.0.0.1", Entry.REDIRECT, DEFERS),
        ("127.0.0.1", Entry.EXPLICIT, {}),
        ("127.0.0.1", Entry.TPROXY, DEFERS | TRANSPARENT),
        ("::1", Entry.REDIRECT, DEFERS | V6_ONLY),
        ("::1", Entry.EXPLICIT, V6_ONLY),
        ("::1", Entry.TPROXY, DEFERS | V6_ONLY | TRANSPARENT),
    ],
)
def test_listeners(recorded: list[Recording], host: str, entry: Entry, options: dict[tuple[int, int], int]) -> None:
    """Without its options a listener takes no foreign destination, holds small answers up, or sees mapped addresses."""
    listener = listen(host, 0, entry)
    (made,) = recorded
    with socket.create_connection((host, listener.port)):
        assert made.options == COMMON | options
        assert made.kind == socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        assert (listener.socket, listener.entry, listener.family) == (made, entry, made.family)
    made.close()


def test_a_port_that_is_taken(recorded: list[Recording]) -> None:
    """Whoever can't listen is told, and no descriptor is left behind for each try."""
    first = listen("127.0.0.1", 0, Entry.EXPLICIT)
    with pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", first.port, Entry.EXPLICIT)
    assert recorded[1].fileno() < 0
    first.socket.close()


@pytest.mark.parametrize(
    ("mark", "source", "more"),
    [
        (None, None, {}),
        (None, "127.0.0.2", {(socket.IPPROTO_IP, 24): 1}),
        (0xFFFFFFFF, None, {(socket.SOL_SOCKET, socket.SO_MARK): b"\xff\xff\xff\xff"}),
    ],
)
def test_connecting(recorded: list[Recording], mark: int | None, source: str | None, more: Any) -> None:
    """Nothing small is held up; a source address shares its ports among destinations; nobody waits for the answer.

    By the mark a firewall knows what not to redirect again.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = connect(server.getsockname(), mark, source)
        taken, address = server.accept()
        taken.close()
        assert address[0] == (source or "127.0.0.1")
    (made,) = recorded
    tcp = {(socket.IPPROTO_TCP, socket.TCP_NODELAY): 1, (socket.IPPROTO_TCP, socket.TCP_QUICKACK): 0}
    assert (made.options, made.kind) == (tcp | more, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    sock.close()


def test_connecting_fails_at_once(recorded: list[Recording], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told why, and no descriptor is left behind for each try."""
    monkeypatch.setattr(Recording, "connect_ex", lambda *_: errno.ENETUNREACH, raising=False)
    with pytest.raises(OSError, match="unreachable"):
        connect(("192.0.2.1", 443))
    assert recorded[0].fileno() < 0


@pytest.mark.parametrize("answer", [OSError(errno.EBADF, "gone"), bytes(135)])
def test_octets_that_nobody_counted(answer: bytes | OSError) -> None:
    """A record says nothing of them then."""
    assert octets(Answering(answer)) is None


def test_octets() -> None:
    """What the client has sent, and what it has acknowledged."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        taken, _ = server.accept()
        with taken:
            client.sendall(b"three")
            assert taken.recv(5, socket.MSG_WAITALL) == b"three"
            counted = octets(taken)
    assert counted == Carried(5, 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_how_many_wait_at_a_listener(host: str) -> None:
    """Those whom nobody has accepted yet, also more of them than an octet holds."""
    listener = listen(host, 0, Entry.EXPLICIT).socket
    dialled: list[socket.socket] = []
    for number in (0, 1, 256):
        while len(dialled) < number:
            dialled.append(socket.create_connection((host, listener.getsockname()[1])))
        assert until(lambda wanted=number: waiting(listener) == wanted)  # type: ignore[misc]
    taken, _ = listener._accept()
    assert waiting(listener) == 255
    socket.close(taken)
    for sock in (listener, *dialled):
        sock.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_class_that_a_clients_first_packet_had(host: str) -> None:
    """Its DSCP without ECN, once; 0 of a packet that the kernel has not kept, and of what is no TCP."""
    v6 = ":" in host
    family, option = (
        (socket.AF_INET6, (socket.IPPROTO_IPV6, socket.IPV6_TCLASS))
        if v6
        else (socket.AF_INET, (socket.IPPROTO_IP, socket.IP_TOS))
    )
    with socket.create_server((host, 0), family=family) as server:
        for keeps in (True, False):
            server.setsockopt(socket.IPPROTO_TCP, TCP_SAVE_SYN, keeps)
            with socket.socket(family) as client:
                client.setsockopt(*option, 0xB8)
                client.connect(server.getsockname())
                with server.accept()[0] as accepted:
                    assert traffic_class(accepted) == (0xB8 if keeps else 0)
                    assert traffic_class(accepted) == 0
    with socket.socket(family, socket.SOCK_DGRAM) as datagrams:
        assert traffic_class(datagrams) == 0
