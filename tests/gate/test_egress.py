"""Where names lead: banned addresses behind them, and the gateway's own."""

import socket
from collections.abc import Callable

import pytest
from gate_lab import Holder, Origin, RunningGate, Sink, broken_off, dial, exactly, policy, read_all, until
from hello_builder import hello_for

from builders import ban, service
from tokgate.blocklog.stamp import Observer
from tokgate.gate.egress import Ways, ways
from tokgate.gate.enforcer import Enforcer
from tokgate.policy.bans import Action
from tokgate.policy.snapshot import Snapshot

StartGate = Callable[..., RunningGate]
StartOrigin = Callable[..., Origin]

ALLOWED = hello_for("www.example.net")
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
BANNED_ADDRESS = "203.0.113.7"


def connect_request(host: str, port: int = 443) -> bytes:
    """A CONNECT request."""
    return f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()


def socks_request(host: str, port: int = 443) -> bytes:
    """A SOCKS 5 request by name."""
    return b"\x05\x01\x00\x03" + bytes([len(host)]) + host.encode() + port.to_bytes(2)


@pytest.fixture
def resolves(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Says what every name resolves to."""

    def to(*addresses: str) -> None:
        monkeypatch.setattr("tokgate.gate.resolver._addresses", lambda host: addresses)

    return to


@pytest.fixture
def from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the tests' clients, which are on loopback, for other machines."""
    monkeypatch.setattr("tokgate.gate.egress._is_elsewhere", lambda client: True)


def ways_of(client: str, *addresses: str, snapshot: Snapshot | None = None) -> Ways:
    """Where an allowed name leads a client of the banned network."""
    holder = Holder(snapshot or policy(ban(networks=("loop",))))
    enforcer = Enforcer(holder, Sink(), Observer(hostname="gate.example.org", version="test"))
    return ways(enforcer, client, "www.example.net", addresses)


@pytest.mark.parametrize(
    ("client", "addresses", "opened"),
    [
        ("127.0.0.1", ("127.0.0.1", "::1"), ("127.0.0.1", "::1")),
        ("::1", ("127.0.0.1",), ("127.0.0.1",)),
        ("::ffff:127.0.0.1", ("127.0.0.1",), ("127.0.0.1",)),
        ("192.0.2.1", ("198.51.100.1", "2001:db8::1"), ("198.51.100.1", "2001:db8::1")),
        ("192.0.2.1", ("127.0.0.1", "198.51.100.1"), ("198.51.100.1",)),
        ("192.0.2.1", (), ()),
    ],
)
def test_open_ways(client: str, addresses: tuple[str, ...], opened: tuple[str, ...]) -> None:
    """Loopback is for clients on loopback; all else is open, in the order found."""
    found = ways_of(client, *addresses)
    assert (found.open, found.banned, found.closed) == (opened, (), False)
    assert found.plain is (addresses == opened)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.9.10", "::1", "0.0.0.0", "::"),
        *("::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:169.254.169.254"),
        *("169.254.169.254", "fe80::1", "fe80::1%eth0"),
    ],
)
def test_closed_ways(address: str) -> None:
    """In every spelling the gateway itself and its links are closed to clients from elsewhere, and to no others."""
    assert ways_of("192.0.2.1", address).closed
    assert ways_of("2001:db8::1", address).closed
    assert not ways_of("127.0.0.1", address).closed


def test_banned_ways() -> None:
    """What is banned by its address is banned under any name, for whom it is banned."""
    found = ways_of("127.0.0.1", BANNED_ADDRESS, "198.51.100.1", "203.0.113.8")
    assert (found.open, found.banned, found.plain) == (("198.51.100.1",), (BANNED_ADDRESS, "203.0.113.8"), False)
    assert found.ruling is not None
    assert found.ruling.judgement.sighting.value == BANNED_ADDRESS
    assert ways_of("192.0.2.1", BANNED_ADDRESS).open == (BANNED_ADDRESS,)


@pytest.mark.parametrize("action", [Action.MONITOR, Action.WARN])
def test_what_is_not_refused_stays_open(action: Action) -> None:
    """Bans that only watch or warn have their say once the tunnel shows what it carries."""
    found = ways_of("127.0.0.1", BANNED_ADDRESS, snapshot=policy(ban(networks=("loop",), action=action)))
    assert (found.open, found.plain, found.closed) == ((BANNED_ADDRESS,), False, False)


def test_a_name_for_a_banned_address(start_gate: StartGate, resolves: Callable[..., None]) -> None:
    """An opener gets the CONNECT as it came, to answer it as one for a banned name."""
    resolves(BANNED_ADDRESS)
    gate = start_gate()
    with dial(gate.explicit, connect_request("own.example.net") + ALLOWED):
        ((_, arrival, received, tls, explicit),) = until(lambda: gate.opener.adopted)
    assert (received, tls, explicit) == (connect_request("own.example.net") + ALLOWED, False, True)
    assert (arrival.destination, arrival.connect) == (None, None)
    assert gate.sink.records == []


def test_a_name_for_a_banned_address_without_an_opener(start_gate: StartGate, resolves: Callable[..., None]) -> None:
    """The gate refuses it itself, and records name and address."""
    resolves(BANNED_ADDRESS)
    gate = start_gate()
    gate.opener.willing = False
    with dial(gate.explicit, connect_request("own.example.net")) as client:
        answer = read_all(client)
    (record,) = gate.sink.records
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"\r\nTokgate-Ban: ban\r\n" in answer
    assert b"tokgate: own.example.net is blocked: " in answer
    assert (record["event"]["action"], record["tokgate"]["signal"]) == ("connect-refused", "address")
    assert (record["destination"]["ip"], record["destination"]["port"]) == (BANNED_ADDRESS, 443)
    assert record["tokgate"]["names"]["http-host"] == ["own.example.net"]


def test_a_name_for_a_banned_address_in_socks(start_gate: StartGate, resolves: Callable[..., None]) -> None:
    """SOCKS has its reply for it."""
    resolves(BANNED_ADDRESS)
    gate = start_gate()
    with dial(gate.explicit, b"\x05\x01\x00", socks_request("own.example.net")) as client:
        assert read_all(client)[:4] == b"\x05\x00\x05\x02"
    assert [r["event"]["action"] for r in gate.sink.records] == ["connect-refused"]


@pytest.mark.parametrize("socks", [False, True])
def test_the_allowed_one_of_several_addresses(
    start_gate: StartGate, start_origin: StartOrigin, resolves: Callable[..., None], socks: bool
) -> None:
    """Of a name's addresses the banned ones are passed over."""
    resolves(BANNED_ADDRESS, "127.0.0.1")
    gate, origin = start_gate(), start_origin()
    asked = (b"\x05\x01\x00", socks_request("cdn.example.net", origin.address[1]))
    said = asked if socks else (connect_request("cdn.example.net", origin.address[1]),)
    with dial(gate.explicit, *said, ALLOWED) as client:
        client.shutdown(socket.SHUT_WR)
        assert read_all(client).endswith(ALLOWED)
    assert gate.sink.records == []


@pytest.mark.parametrize("socks", [False, True])
def test_a_watched_address_is_recorded(
    start_gate: StartGate, start_origin: StartOrigin, resolves: Callable[..., None], socks: bool
) -> None:
    """As for redirected connections: once, at the ClientHello, with the address."""
    resolves("127.0.0.1")
    watched = (service("clips", addresses=("127.0.0.1/32",)),)
    gate = start_gate(snapshot=policy(ban(networks=("loop",), action=Action.MONITOR), services=watched))
    origin = start_origin()
    asked = (b"\x05\x01\x00", socks_request("own.example.net", origin.address[1]))
    said = asked if socks else (connect_request("own.example.net", origin.address[1]),)
    with dial(gate.explicit, *said, ALLOWED) as client:
        client.shutdown(socket.SHUT_WR)
        assert read_all(client).endswith(ALLOWED)
    (record,) = gate.sink.records
    assert (record["event"]["action"], record["destination"]["ip"]) == ("would-block", "127.0.0.1")
    assert record["tokgate"]["names"]["http-host"] == ["own.example.net"]


@pytest.mark.parametrize("said", [b"", ALLOWED])
def test_an_address_that_becomes_banned(
    start_gate: StartGate, start_origin: StartOrigin, resolves: Callable[..., None], said: bytes
) -> None:
    """An open tunnel by name ends when its address comes under a ban, whether it has shown anything or not."""
    resolves("127.0.0.1")
    gate, origin = start_gate(), start_origin()
    with dial(gate.explicit, connect_request("own.example.net", origin.address[1]) + said) as client:
        assert exactly(client, len(ESTABLISHED) + len(said)) == ESTABLISHED + said
        banned = (service("clips", addresses=("127.0.0.1/32",)),)
        gate.holder.snapshot = policy(ban(networks=("loop",)), services=banned)
        assert broken_off(client)
    (record,) = until(lambda: list(gate.sink.records))
    assert (record["event"]["action"], record["tokgate"]["signal"]) == ("connection-cut", "address")


@pytest.mark.usefixtures("from_elsewhere")
@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "0.0.0.0", "[::ffff:127.0.0.1]", "169.254.169.254", "localhost"]
)
def test_the_gateway_itself(start_gate: StartGate, start_origin: StartOrigin, host: str) -> None:
    """Clients from elsewhere reach nothing on the gateway's loopback, by address or name."""
    gate, origin = start_gate(), start_origin()
    with dial(gate.explicit, connect_request(host, origin.address[1])) as client:
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"tokgate: what only the proxy's own machine can reach" in answer
    assert (origin.accepted, gate.gate.enforcer.counters.loops, gate.opener.adopted) == (0, 1, [])


@pytest.mark.usefixtures("from_elsewhere")
@pytest.mark.parametrize(
    "asked", [socks_request("localhost"), socks_request("127.0.0.1"), b"\x05\x01\x00\x01\x7f\x00\x00\x01\x01\xbb"]
)
def test_the_gateway_itself_in_socks(start_gate: StartGate, asked: bytes) -> None:
    """SOCKS says that it isn't allowed."""
    gate = start_gate()
    with dial(gate.explicit, b"\x05\x01\x00", asked) as client:
        assert read_all(client)[:4] == b"\x05\x00\x05\x02"
    assert gate.gate.enforcer.counters.loops == 1
