"""Source addresses: used in turn, each with ports of its own, and never a way back to the gate itself."""

import errno
import os
import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from tokgate.gate.egress.dialler import Sources, elsewhere
from tokgate.gate.sockets import IP_BIND_ADDRESS_NO_PORT, Address, Socket, connect, leads_to
from tokgate.policy.values.hostname import IPAddress

POOL = [ip_address(each) for each in ("127.0.0.2", "127.0.0.3", "::1")]


@pytest.fixture
def origin() -> Iterator[socket.socket]:
    """A server on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def test_in_turn(origin: socket.socket) -> None:
    """Each address of the destination's family carries as many connections as the others, and shares its ports."""
    pool, peers = Sources(POOL), []
    for _ in range(4):
        sock = pool.connect(origin.getsockname())
        assert sock.getsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT) == 1
        client, (host, _) = origin.accept()
        peers.append(host)
        client.close()
        sock.close()
    assert peers == ["127.0.0.2", "127.0.0.3"] * 2


def test_without_a_pool(origin: socket.socket) -> None:
    """The address that the route has."""
    sock = Sources().connect(origin.getsockname())
    client, (host, _) = origin.accept()
    client.close()
    sock.close()
    assert host == "127.0.0.1"


@pytest.mark.parametrize("number", [errno.EADDRNOTAVAIL, errno.ENETUNREACH])
def test_one_has_no_port_left(origin: socket.socket, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The next one is tried; what is the destination's fault is no reason to try again."""

    def from_the_third_alone(destination: Address, mark: int | None, source: str) -> tuple[Socket, int]:
        if source != "127.0.0.3":
            raise OSError(number, os.strerror(number))
        return connect(destination, mark, source)

    monkeypatch.setattr("tokgate.gate.egress.dialler.connect", from_the_third_alone)
    pool = Sources(POOL)
    if number == errno.EADDRNOTAVAIL:
        pool.connect(origin.getsockname()).close()
        origin.accept()[0].close()
    else:
        with pytest.raises(OSError, match=os.strerror(number)):
            pool.connect(origin.getsockname())


def test_all_have_no_port_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure is told, and counted by who connects."""

    def never(*_: object) -> tuple[Socket, int]:
        raise OSError(errno.EADDRNOTAVAIL, "none")

    monkeypatch.setattr("tokgate.gate.egress.dialler.connect", never)
    with pytest.raises(OSError, match="none"):
        Sources(POOL).connect(("127.0.0.1", 1))


def test_a_way_back_is_seen_from_another_address(origin: socket.socket) -> None:
    """A tunnel to the gate's own port would call the gate for ever, whatever its source."""
    own = "127.0.0.1", origin.getsockname()[1]
    sock = Sources(POOL).connect(own)
    origin.accept()[0].close()
    assert leads_to(sock, own, [("0.0.0.0", own[1])])
    sock.close()


def test_addresses_of_others() -> None:
    """A policy may name what another gateway has: it is said at the start."""
    assert elsewhere([*POOL, ip_address("192.0.2.1")]) == ["192.0.2.1"]


@pytest.mark.parametrize(
    ("pool", "host", "source"),
    [(POOL, "192.0.2.1", ("127.0.0.2",)), (POOL, "2001:db8::9", ("::1",)), (POOL[:2], "2001:db8::9", ())],
)
def test_of_the_destinations_family(
    monkeypatch: pytest.MonkeyPatch, pool: list[IPAddress], host: str, source: tuple[str, ...]
) -> None:
    """From an address of the pool, if it has one that can reach the destination."""
    asked: list[tuple[object, ...]] = []

    def note(*stated: object) -> tuple[None, int]:
        asked.append(stated)
        return None, 0

    monkeypatch.setattr("tokgate.gate.egress.dialler.connect", note)
    Sources(pool, 7).connect((host, 443))
    assert asked == [((host, 443), 7, *source)]
