"""Connections to destinations, as the policy in force says: their source, and what is counted of those that fail."""

import errno
import os
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from labs.builders import snapshot
from labs.records import enforcer_of
from tokgate.gate.egress.dialler import Dialler, Sources, elsewhere, may_be_transparent
from tokgate.gate.sockets import IP_BIND_ADDRESS_NO_PORT, Address, Socket, connect
from tokgate.policy.settings import EgressSettings
from tokgate.policy.values.hostname import IPAddress
from tokgate.traffic.counters import CONNECT_ERROR, ConnectError


@pytest.fixture
def dialler() -> Dialler:
    """One whose counters can be read."""
    return Dialler(enforcer_of(snapshot()), None)


def test_another_policy_has_other_sources(dialler: Dialler) -> None:
    """The address of a connection is one that the policy names, and the route's again once it names none."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        for egress, expected in (
            (EgressSettings(), "127.0.0.1"),
            (EgressSettings(addresses=(ip_address("127.0.0.7"),)), "127.0.0.7"),
            (EgressSettings(), "127.0.0.1"),
        ):
            reached = dialler.connect(server.getsockname(), egress, 0.0)
            client, address = server.accept()
            assert address[0] == expected
            client.close()
            reached.close()


@pytest.mark.parametrize(
    ("number", "kind", "starved"),
    [
        (errno.ENETUNREACH, ConnectError.UNREACHABLE, None),
        (errno.EMFILE, ConnectError.NO_DESCRIPTOR, (ConnectError.NO_DESCRIPTOR, 5.0)),
    ],
)
def test_failures(
    dialler: Dialler,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: ConnectError,
    starved: tuple[ConnectError, float] | None,
) -> None:
    """Each is counted by its kind; one of which this machine is the cause is remembered with its time."""

    def fail(*_: object) -> None:
        raise OSError(number, "")

    monkeypatch.setattr("tokgate.gate.egress.dialler.connect", fail)
    with pytest.raises(OSError, match=str(number)):
        dialler.connect(("192.0.2.1", 443), EgressSettings(), 5.0)
    counted = dialler._enforcer.counters.shared.read()
    assert {key: count for key, count in counted.items() if key[0] == CONNECT_ERROR} == {(CONNECT_ERROR, kind): 1}
    assert dialler.starved == starved


@pytest.mark.parametrize("may", [True, False])
def test_clients_of_which_the_address_is_taken(monkeypatch: pytest.MonkeyPatch, may: bool) -> None:
    """Where the policy wants it and this process may; this machine's own would come to a gate again."""
    monkeypatch.setattr("tokgate.gate.egress.dialler.may_be_transparent", lambda: may)
    taken = [Sources(None).takes("192.0.2.7", EgressSettings(client=wanted)) for wanted in (True, False)]
    assert taken == [may, False]
    assert not Sources(None).takes("127.0.0.1", EgressSettings(client=True))


# -- source addresses: used in turn, each with ports of its own

POOL = tuple(map(ip_address, ("127.0.0.2", "127.0.0.3", "::1")))
EGRESS = EgressSettings(addresses=POOL)


@pytest.fixture
def origin() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def test_in_turn(origin: socket.socket) -> None:
    """Each address of the destination's family carries as many connections as the others, and shares its ports."""
    pool, peers = Sources(None), []
    for _ in range(4):
        sock = pool.connect(origin.getsockname(), EGRESS)
        assert sock.getsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT) == 1
        client, (host, _) = origin.accept()
        peers.append(host)
        client.close()
        sock.close()
    assert peers == ["127.0.0.2", "127.0.0.3"] * 2


@pytest.mark.parametrize("number", [errno.EADDRNOTAVAIL, errno.ENETUNREACH])
def test_one_has_no_port_left(origin: socket.socket, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The next one is tried; what is the destination's fault is no reason to try again."""

    def from_the_third_alone(destination: Address, mark: int | None, source: str) -> Socket:
        if source != "127.0.0.3":
            raise OSError(number, os.strerror(number))
        return connect(destination, mark, source)

    monkeypatch.setattr("tokgate.gate.egress.dialler.connect", from_the_third_alone)
    pool = Sources(None)
    if number == errno.EADDRNOTAVAIL:
        pool.connect(origin.getsockname(), EGRESS).close()
        origin.accept()[0].close()
    else:
        with pytest.raises(OSError, match=os.strerror(number)):
            pool.connect(origin.getsockname(), EGRESS)


def test_addresses_of_others() -> None:
    """A policy may name what another gateway has: it is said at the start."""
    assert elsewhere([*POOL, ip_address("192.0.2.1")]) == ["192.0.2.1"]


@pytest.mark.parametrize(
    ("pool", "host", "source"),
    [(POOL, "192.0.2.1", ("127.0.0.2",)), (POOL, "2001:db8::9", ("::1",)), (POOL[:2], "2001:db8::9", ())],
)
def test_of_the_destinations_family(
    monkeypatch: pytest.MonkeyPatch, pool: tuple[IPAddress, ...], host: str, source: tuple[str, ...]
) -> None:
    """From an address of the pool, if it has one that can reach the destination."""
    asked: list[tuple[object, ...]] = []

    def note(*stated: object) -> None:
        asked.append(stated)

    monkeypatch.setattr("tokgate.gate.egress.dialler.connect", note)
    Sources(7).connect((host, 443), EgressSettings(addresses=pool))
    assert asked == [((host, 443), 7, *source)]


def test_whose_addresses_may_be_taken() -> None:
    """CAP_NET_ADMIN or CAP_NET_RAW is needed (capabilities(7): bits 12 and 13)."""
    (held,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff:"))
    may_be_transparent.cache_clear()
    assert may_be_transparent() is bool(int(held.split()[1], 16) >> 12 & 0b11)
